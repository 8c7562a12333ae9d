// Where the chat template comes from, what it sees, and what its errors say.
import { ChatTemplate } from '../../lib/tokenizer/chat-template';

const messages = [{ role: 'user', content: 'Hi' }] as const;
const failing = (message: string) =>
  expect.objectContaining({ code: 'ERR_TOKENIZER', message: expect.stringContaining(message) });

test('sees messages, special tokens, add_generation_prompt and variables', () => {
  const source =
    '{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}{{ eos_token }}' +
    '{% if add_generation_prompt %}>{% endif %}{{ extra }}';
  const template = new ChatTemplate(source, { bos_token: '<s>', eos_token: { content: '</s>' }, unk_token: null });
  expect(template.render(messages, { extra: '!' })).toBe('<s>[user]Hi</s>>!');
  expect(template.render(messages, { add_generation_prompt: false })).toBe('<s>[user]Hi</s>');
});

test('strftime_now gives the date', () => {
  expect(new ChatTemplate("{{ strftime_now('%Y') }}", {}).render([], {})).toBe(String(new Date().getFullYear()));
});

test('chat_template.jinja goes before tokenizer_config.json', () => {
  expect(new ChatTemplate('file', { chat_template: 'config' }).render([], {})).toBe('file');
  expect(new ChatTemplate(undefined, { chat_template: 'config' }).render([], {})).toBe('config');
});

test('of several templates, default is taken, and tool_use where there are tools', () => {
  const template = new ChatTemplate(undefined, {
    chat_template: [
      { name: 'default', template: 'plain' },
      { name: 'tool_use', template: 'tools' },
    ],
  });
  expect(template.render([], {})).toBe('plain');
  expect(template.render([], { tools: [] })).toBe('tools');
});

test('a missing, broken or refusing template is ERR_TOKENIZER', () => {
  expect(new ChatTemplate(undefined, {}).exists).toBe(false);
  expect(() => new ChatTemplate(undefined, {}).render([], {})).toThrow(failing('must have a chat template'));
  const other = new ChatTemplate(undefined, { chat_template: [{ name: 'rag', template: '' }] });
  expect(() => other.render([], {})).toThrow(failing('got only rag'));
  expect(() => new ChatTemplate('{% if %}', {}).render([], {})).toThrow(failing('does not parse'));
  const refusing = new ChatTemplate("{{ raise_exception('roles must alternate') }}", {});
  expect(() => refusing.render(messages, {})).toThrow(failing('applyChatTemplate: roles must alternate'));
});
