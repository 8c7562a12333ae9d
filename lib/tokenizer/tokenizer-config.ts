// tokenizer_config.json, as far as it is read here.
import type { AddedToken } from './huggingface';

export type ConfigToken = string | { readonly content: string } | null;
export interface Config {
  readonly add_bos_token?: boolean;
  readonly chat_template?: string | readonly { readonly name: string; readonly template: string }[];
  readonly added_tokens_decoder?: Readonly<Record<string, Omit<AddedToken, 'id'>>>;
  readonly additional_special_tokens?: readonly ConfigToken[];
  /** bos_token, eos_token ... */
  readonly [name: string]: unknown;
}

/** bos_token, eos_token, unk_token ... by name, those that there are. */
export function specialTokens(config: Config): Record<string, string> {
  const names = ['bos_token', 'eos_token', 'unk_token', 'sep_token', 'pad_token', 'cls_token', 'mask_token'];
  return Object.fromEntries(
    names.flatMap((name) => {
      const content = tokenContent(config[name] as ConfigToken | undefined);
      return content === undefined ? [] : [[name, content]];
    }),
  );
}

export const tokenContent = (token: ConfigToken | undefined): string | undefined =>
  typeof token === 'string' ? token : (token?.content ?? undefined);
