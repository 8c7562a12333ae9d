"""Trains a small byte-level BPE tokenizer of Qwen3.5's form on corpus.txt and writes golden ids, texts and chats.

Usage: python tokenizer.py OUT
"""

import pathlib
import sys

import jinja2
from golden import versions, write_json
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

HERE = pathlib.Path(__file__).parent
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
ADDED = ["<think>", "</think>", "<tool_response>", "</tool_response>"]  # added but not special, as in Qwen
# The word pattern of Qwen3.5's tokenizer.json.
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}"
    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

TEXTS = {
    "empty": "",
    "one space": " ",
    "plain": "The keeper wrote one line each night.",
    "contractions": "It's what they'll say, isn't it? I'VE SEEN IT; you'd know.",
    "digits": "In 1908, 1,234,567 words cost 3.14159 each.",
    "long whitespace": "a" + " " * 40 + "b\t\t \tc   ",
    "newlines": "one\n\ntwo\r\n\r\n\n   three\n ",
    "only newlines": "\n\n\n",
    "code": "if (x === 0) {\n    throw new Error('none'); // why?\n}\n",
    "german": "Schön wäre es, wenn man vorher wüsste, was wichtig ist.",
    "decomposed": "Scho\u0308n, e\u0301te\u0301, man\u0303ana",
    "combining marks left": "q\u0323\u0307 x\u0302 \u0e01\u0e33",
    "chinese": "灯塔的看守人每天晚上写一行字。第十年他只写风。",
    "japanese": "灯台守は毎晩一行だけ書いた。",
    "russian": "Смотритель маяка писал о ветре.",
    "arabic": "كتب الحارس سطرا واحدا كل ليلة.",
    "hindi": "नमस्ते दुनिया",
    "emoji": "Light 🗼 and fog 🌫️, 👩‍👩‍👧‍👦 family, 🏳️‍🌈 flag, 👍🏽!",
    "astral": "𝕷𝖎𝖓𝖊 𐍈 𠜎",
    "invisible": "zero\u200bwidth\u00a0nbsp\ufeffbom\u2028line",
    "control": "bell\u0007 null\u0000 tab\t end",
    "special inside": "before<|im_start|>user\nhello<|im_end|>\n<|endoftext|>after",
    "special with spaces": " <|im_end|> <|im_end|>",
    "almost special": "<|im_start| > <|im_ start|> <im_end>",
    "added": "<think>\nshort\n</think>\n\nanswer <think></think>",
    "repeated": "ha" * 60,
    "long word": "Leuchtturmwärterinnenhäuschen" * 3,
    "punctuation": "...!!!??? --- === (((a))) [[b]] {{c}} \"quoted\" 'single' `tick`",
    "mixed": "Tower塔tower Wärter12守34",
}

CHATS = [
    ("user only", [("user", "Who wrote the last page?")], {"add_generation_prompt": True}),
    ("no generation prompt", [("user", "Hello"), ("assistant", "Good evening.")], {}),
    ("system", [("system", "Be short."), ("user", "Hello")], {"add_generation_prompt": True}),
    (
        "thinking is dropped from finished turns",
        [
            ("user", "One?"),
            ("assistant", "<think>\nhm\n</think>\n\nOne."),
            ("user", "Two?"),
            ("assistant", "<think>\nhm\n</think>\n\nTwo."),
        ],
        {},
    ),
    ("thinking off", [("user", "Quick?")], {"add_generation_prompt": True, "enable_thinking": False}),
    ("text parts", [("user", [{"type": "text", "text": "Read "}, {"type": "text", "text": "this."}])], {}),
    (
        "tools",
        [("system", "Be exact."), ("user", "Wind?"), ("tool", '{"wind": "north"}')],
        {
            "add_generation_prompt": True,
            "tools": [
                {
                    "type": "function",
                    "function": {
                        "name": "wind",
                        "description": "Wind at the tower; \u00e9t\u00e9 & hiver <now>",
                        "parameters": {"type": "object", "properties": {"hour": {"type": "integer"}}, "required": []},
                    },
                }
            ],
        },
    ),
    ("special tokens in the text", [("user", "Say <|im_end|> twice")], {"add_generation_prompt": True}),
    ("newlines and spaces are kept", [("user", "\n  two lines\n\n"), ("assistant", " ok ")], {}),
]


def train() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1000 - len(SPECIAL) - len(ADDED),
        min_frequency=1,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator((HERE / "corpus.txt").read_text("utf-8").split("\n\n"), trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in ADDED])
    return tokenizer


def config(tokenizer: Tokenizer) -> dict:
    return {
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": {
            str(tokenizer.token_to_id(token)): {
                "content": token, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False,
                "special": token in SPECIAL,
            }
            for token in SPECIAL + ADDED
        },
        "additional_special_tokens": ["<|im_start|>", "<|im_end|>"],
        "bos_token": None,
        "chat_template": (HERE / "chat-template.jinja").read_text("utf-8"),
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "model_max_length": 262144,
        "pad_token": "<|endoftext|>",
        "split_special_tokens": False,
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": None,
    }  # fmt: skip


def text_cases(tokenizer: Tokenizer) -> list[dict]:
    cases = []
    for name, text in TEXTS.items():
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        decoded = tokenizer.decode(ids, skip_special_tokens=False)
        cases.append(
            {
                "name": name,
                "text": text,
                "ids": ids,
                "decoded": decoded,
                "decoded_without_special": tokenizer.decode(ids, skip_special_tokens=True),
            }
        )
    return cases


def prefix_cases(tokenizer: Tokenizer) -> list[dict]:
    """The text of ids[:n] for every n: an unfinished character decodes to U+FFFD until its last byte is there."""
    cases = []
    for name in ("emoji", "chinese", "arabic"):
        ids = tokenizer.encode(TEXTS[name], add_special_tokens=False).ids[:40]
        texts = [tokenizer.decode(ids[:n], skip_special_tokens=False) for n in range(1, len(ids) + 1)]
        assert any(text.endswith("\ufffd") for text in texts), "no token ends inside a character"
        cases.append({"name": name, "ids": ids, "texts": texts})
    return cases


def chat_cases(folder: pathlib.Path) -> list[dict]:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    cases = []
    for name, turns, options in CHATS:
        messages = [{"role": role, "content": content} for role, content in turns]
        rendered = tokenizer.apply_chat_template(messages, tokenize=False, **options)
        ids = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False, **options)
        assert ids == tokenizer(rendered, add_special_tokens=False)["input_ids"]
        cases.append({"name": name, "messages": messages, "options": options, "rendered": rendered, "ids": ids})
    try:
        tokenizer.apply_chat_template([{"role": "oracle", "content": "?"}], tokenize=False)
    except jinja2.exceptions.TemplateError as error:
        cases.append(
            {"name": "unknown role", "messages": [{"role": "oracle", "content": "?"}], "options": {}, "error": str(error)}
        )
    return cases


if __name__ == "__main__":
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = train()
    assert tokenizer.get_vocab_size() == 1000
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(folder / "tokenizer_config.json", config(tokenizer))
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    texts = text_cases(tokenizer)
    assert all(case["ids"] == tokenizer.encode(case["decoded"], add_special_tokens=False).ids for case in texts)
    chats = chat_cases(folder)
    assert len(chats) == len(CHATS) + 1
    write_json(
        folder / "golden.json",
        {
            "versions": versions("tokenizers", "transformers", "Jinja2"),
            "vocabulary": tokenizer.get_vocab_size(),
            "texts": texts,
            "prefixes": prefix_cases(tokenizer),
            "chats": chats,
        },
    )
