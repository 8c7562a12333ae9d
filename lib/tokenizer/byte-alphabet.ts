// The printable character that stands for each byte in the vocabulary of a byte-level tokenizer (GPT-2's table):
// bytes with a visible Latin-1 character are that character, the others follow from U+0100 in order.

const isPrintable = (byte: number): boolean =>
  (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;

let hidden = 0;
const charOfByte = Array.from({ length: 256 }, (_, byte) =>
  String.fromCharCode(isPrintable(byte) ? byte : 0x100 + hidden++),
);
const byteOfChar = new Map(charOfByte.map((char, byte) => [char, byte]));

/** The UTF-8 bytes of text, each as its character. A lone surrogate becomes U+FFFD first. */
export function toByteChars(text: string): string {
  let chars = '';
  for (const byte of Buffer.from(text, 'utf8')) chars += charOfByte[byte];
  return chars;
}

/** The bytes that chars stand for; undefined when one of them stands for none. */
export function fromByteChars(chars: string): Uint8Array | undefined {
  const bytes = new Uint8Array(chars.length);
  for (let i = 0; i < chars.length; i++) {
    const byte = byteOfChar.get(chars[i]!);
    if (byte === undefined) return undefined;
    bytes[i] = byte;
  }
  return bytes;
}
