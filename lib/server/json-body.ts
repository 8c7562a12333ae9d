// Bodies of JSON as fastify reads them, but that an empty one is no body, and that nesting has an end: what looks into a
// body, prints it or hands it to a template is recursive.
import type { FastifyInstance } from 'fastify';
import { invalid } from './api-error';

/** Requests nest five levels, schemas of tools some more. */
const mostLevels = 100;

export function addJsonParser(app: FastifyInstance): void {
  const parse = app.getDefaultJsonParser('error', 'error');
  app.removeContentTypeParser('application/json');
  app.addContentTypeParser<string>('application/json', { parseAs: 'string' }, (request, text, done) => {
    if (text === '') return done(null, undefined); // many clients name the type where they send nothing
    parse(request, text, (error, value) => {
      if (error === null && isDeep(value)) done(invalid(null, `the body must have at most ${mostLevels} levels`));
      else done(error, value);
    });
  });
}

function isDeep(value: unknown): boolean {
  let level = [value];
  for (let levels = 0; level.length > 0; levels++) {
    if (levels > mostLevels) return true;
    const next: unknown[] = [];
    for (const one of level) {
      if (typeof one !== 'object' || one === null) continue;
      for (const inner of Array.isArray(one) ? one : Object.values(one)) {
        if (typeof inner === 'object' && inner !== null) next.push(inner);
      }
    }
    level = next;
  }
  return false;
}
