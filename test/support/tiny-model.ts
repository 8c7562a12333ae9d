// A folder that `load` takes: the weights of a golden model (256 tokens) and a tokenizer whose tokens are the bytes.
import { copyFileSync, mkdtempSync, readdirSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const bytes = Array.from({ length: 256 }, (_, byte) => byte);
const isPrintable = (byte: number) => (byte > 0x20 && byte < 0x7f) || (byte > 0xa0 && byte < 0xad) || byte > 0xad;
const hidden = bytes.filter((byte) => !isPrintable(byte));
const charOf = (byte: number) => String.fromCharCode(isPrintable(byte) ? byte : 0x100 + hidden.indexOf(byte));

const tokenizer = {
  added_tokens: [],
  normalizer: null,
  pre_tokenizer: { type: 'ByteLevel', add_prefix_space: false, use_regex: true },
  post_processor: null,
  decoder: { type: 'ByteLevel' },
  model: { type: 'BPE', vocab: Object.fromEntries(bytes.map((byte) => [charOf(byte), byte])), merges: [] },
};
const config = { chat_template: '{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant: ' };

/** `golden` is a folder under test/golden. The caller removes the new folder. */
export function tinyModelFolder(golden = 'qwen3_5/tied'): string {
  const folder = mkdtempSync(join(tmpdir(), 'linattn-model-'));
  const source = join(__dirname, '..', 'golden', golden);
  for (const file of readdirSync(source)) {
    if (file === 'config.json' || file.startsWith('model')) copyFileSync(join(source, file), join(folder, file));
  }
  writeFileSync(join(folder, 'tokenizer.json'), JSON.stringify(tokenizer));
  writeFileSync(join(folder, 'tokenizer_config.json'), JSON.stringify(config));
  return folder;
}
