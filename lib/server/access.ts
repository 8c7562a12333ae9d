// Who is let in: holders of the key; and on loopback without one, no page that a browser was led to by a false name.
import { createHash, timingSafeEqual } from 'node:crypto';
import type { FastifyRequest } from 'fastify';
import { ApiError } from './api-error';
import type { ServerOptions } from './options';

const digest = (text: string): Buffer => createHash('sha256').update(text).digest();
const loopback = /^(localhost|127(\.\d+){3}|\[::1\])$/;

/** What throws an ApiError 401 or 403 for a request that may not come in. */
export function accessCheck({ apiKey, host }: ServerOptions): (request: FastifyRequest) => void {
  if (apiKey !== undefined) {
    const wanted = digest(apiKey);
    return ({ headers }) => {
      const given = /^Bearer +(.*)$/i.exec(headers.authorization ?? '')?.[1];
      if (given === undefined) throw new ApiError(401, 'missing_api_key', 'Authorization: Bearer <key> is missing');
      if (!timingSafeEqual(digest(given), wanted)) throw new ApiError(401, 'invalid_api_key', 'the API key is wrong');
    };
  }
  if (!loopback.test(host) && host !== '::1') return () => undefined;
  return ({ headers: { host: asked = '', origin } }) => {
    // Against DNS rebinding: a foreign page's name that points to this machine.
    const name = asked.replace(/:\d+$/, '').toLowerCase();
    if (!loopback.test(name)) {
      throw new ApiError(403, 'forbidden_host', `the Host must be of this machine where there is no key, got ${name}`);
    }
    // A foreign page cannot read an answer, but a browser sends what has no body without asking.
    if (origin !== undefined && origin !== `http://${asked.toLowerCase()}`) {
      throw new ApiError(403, 'forbidden_origin', `a page of ${origin} may not use this server where there is no key`);
    }
  };
}
