// The chat template of a model: messages to the text that the model was trained on, rendered as Jinja.
import { linattnError } from '../errors';
import { Template } from './huggingface';
import { type Config, specialTokens } from './tokenizer-config';

export interface Message {
  role: 'system' | 'user' | 'assistant' | 'tool';
  content: string;
}

export class ChatTemplate {
  readonly #sources: ReadonlyMap<string, string>;
  readonly #compiled = new Map<string, Template>();
  readonly #specialTokens: Readonly<Record<string, string>>;

  /** `file` is the text of chat_template.jinja, which goes before the template of tokenizer_config.json. */
  constructor(file: string | undefined, config: Config) {
    const { chat_template: named } = config;
    this.#sources = new Map(
      file !== undefined
        ? [['default', file]]
        : typeof named === 'string'
          ? [['default', named]]
          : (named ?? []).map(({ name, template }) => [name, template]),
    );
    this.#specialTokens = specialTokens(config);
  }

  get exists(): boolean {
    return this.#sources.size > 0;
  }

  /**
   * The text for `messages`. The template sees them, `variables` (tools, enable_thinking ...), the special tokens by
   * name (bos_token ...) and add_generation_prompt, true unless `variables` has it.
   */
  render(messages: readonly Message[], variables: Record<string, unknown>): string {
    const template = this.#template(variables.tools !== undefined ? ['tool_use', 'default'] : ['default']);
    try {
      return template.render({ ...this.#specialTokens, add_generation_prompt: true, ...variables, messages });
    } catch (error) {
      throw linattnError('ERR_TOKENIZER', `applyChatTemplate: ${(error as Error).message}`, { cause: error });
    }
  }

  #template(names: readonly string[]): Template {
    const name = names.find((wanted) => this.#sources.has(wanted));
    if (name === undefined) {
      throw linattnError(
        'ERR_TOKENIZER',
        'applyChatTemplate: the model must have a chat template (chat_template.jinja, or chat_template in ' +
          `tokenizer_config.json), got ${this.exists ? `only ${[...this.#sources.keys()].join(', ')}` : 'none'}`,
      );
    }
    let template = this.#compiled.get(name);
    if (!template) {
      try {
        template = new Template(this.#sources.get(name)!);
      } catch (error) {
        throw linattnError(
          'ERR_TOKENIZER',
          `applyChatTemplate: the chat template does not parse: ${(error as Error).message}`,
          {
            cause: error,
          },
        );
      }
      this.#compiled.set(name, template);
    }
    return template;
  }
}
