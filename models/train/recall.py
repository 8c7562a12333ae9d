"""Planted facts: the sentences, questions and answers of the recall task, for training and for evaluation.

Names (adjective, noun) whose hash falls in one class are never used in training, so the evaluation asks about names
that the model has not seen together.
"""
import hashlib
import random

ADJECTIVES = ("blue red green silver golden wooden broken quiet hidden ancient crooked painted narrow lonely frozen "
              "marble iron copper velvet dusty bright distant northern southern eastern western old new little great "
              "round square empty crowded burning sunken flying sleeping wandering forgotten royal humble purple orange "
              "grey black white yellow crimson amber secret sacred stone glass paper cotton silent windy rainy misty").split()
NOUNS = ("house lantern castle garden harbor bridge tower river mountain library market village station museum theatre "
         "school chapel factory cottage lighthouse forest valley island ship wagon carriage train mill barn cellar attic "
         "office hotel palace fountain statue clock mirror piano violin basket chest cabinet drawer locker vault tent "
         "cabin bakery tavern farm orchard meadow canyon desert glacier volcano temple monastery workshop stable dock").split()
TITLES = "Mr. Mrs. Miss Captain Doctor Professor Colonel Lady Sir Judge".split()
SURNAMES = ("Arden Barlow Carver Denham Ellison Farrow Granger Hollis Ingram Jessop Kendal Lorimer Marsden Norwood Osgood "
            "Palmer Quincy Radford Selwyn Thornton Underhill Vickers Wexford Yardley Ashby Bexley Colby Dunmore Everly "
            "Finch Garrick Harlow Ives Jarvis Keats Lyndon Mercer Nash Orwin Pryor").split()
ATTRIBUTES = ("secret code|access code|magic number|password|vault number|room number|serial number|phone number|"
              "registration number|lucky number|account number|reference number|code word|identification number|"
              "combination|postal code").split("|")
COLOURS = "red blue green silver golden violet amber scarlet ivory ebony copper crimson".split()
ANIMALS = "falcon tiger otter raven badger salmon heron panther beetle lizard walrus stallion sparrow lobster".split()
STATEMENTS = ("The {a} of {e} is {v}.", "Remember that the {a} of {e} is {v}.", "Note: the {a} of {e} is {v}.",
              "Please keep in mind that the {a} of {e} is {v}.", "It is written that the {a} of {e} is {v}.")
QUESTIONS = ("Question: What is the {a} of {e}?\nAnswer:", "As was said before, the {a} of {e} is",
             "Q: What was the {a} of {e}?\nA:", "Recall that the {a} of {e} is")


def held_out(adjective: str, noun: str) -> bool:
    return hashlib.sha256(f"{adjective} {noun}".encode()).digest()[0] % 8 == 0


def entity(rng: random.Random, evaluation: bool) -> str:
    if not evaluation and rng.random() < 0.25:
        return f"{rng.choice(TITLES)} {rng.choice(SURNAMES)}"
    while True:
        a, n = rng.choice(ADJECTIVES), rng.choice(NOUNS)
        if held_out(a, n) == evaluation:
            return f"the {a} {n}"


def value(rng: random.Random, evaluation: bool) -> str:
    kind = 0.0 if evaluation else rng.random()
    if kind < 0.65:
        return "".join(rng.choice("0123456789") for _ in range(5 if evaluation else rng.randint(3, 7)))
    if kind < 0.85:
        return f"{rng.choice(COLOURS)} {rng.choice(ANIMALS)}"
    return f"{rng.choice('ABCDEFGHJKLMNPRSTUVWXYZ')}{rng.randint(1, 9)}-{rng.randint(100, 999)}"


def facts(rng: random.Random, count: int, evaluation: bool = False) -> list[tuple[str, str, str]]:
    """`count` different (attribute, entity, value) triples; some share the attribute or the entity."""
    out, seen = [], set()
    while len(out) < count:
        if out and rng.random() < 0.3:
            a, e = out[rng.randrange(len(out))][0], entity(rng, evaluation)
        elif out and not evaluation and rng.random() < 0.2:
            a, e = rng.choice(ATTRIBUTES), out[rng.randrange(len(out))][1]
        else:
            a, e = rng.choice(ATTRIBUTES), entity(rng, evaluation)
        if (a, e) not in seen:
            seen.add((a, e))
            out.append((a, e, value(rng, evaluation)))
    return out
