"""Varied English sentences (with some names, numbers and other languages) for measurements of accuracy."""

from importlib import import_module

# Who, and what.
_TOPICS = (
    ("the harbour bridge", "was closed for repairs"), ("a new vaccine", "entered its third trial"),
    ("my grandmother's bread", "never rises in winter"), ("the appeal court", "dismissed both claims"),
    ("an unhandled exception", "stops the nightly import"), ("the Danube", "flooded its banks in June"),
    ("quarterly revenue", "fell by 3.7 % to $1,299 million"), ("photosynthesis", "turns light into sugar"),
    ("the orchestra", "played Mahler without a conductor"), ("a stray cat", "sleeps on the post office counter"),
    ("every prime above two", "is odd"), ("the 1998 treaty", "set quotas for herring"),
    ("this phone", "loses its charge within an hour"), ("the goalkeeper", "saved two penalties"),
    ("La Tour Eiffel", "mesure 330 mètres"), ("the patient, aged 54,", "complained of chest pain"),
    ("GPU memory bandwidth", "limits decoding speed"), ("the tenant", "has not paid since March"),
    ("a flock of starlings", "turned over the marsh"), ("the kettle", "switches itself off"),
    ("Byzantine mosaics", "cover the apse"), ("the night train to Lisbon", "leaves at 21:34"),
    ("olive oil", "should be kept away from light"), ("the spacecraft", "missed its landing site by 40 km"),
    ("our insurance", "does not cover hail"), ("the second volume", "explains the proof in full"),
    ("a mild earthquake", "woke the whole valley"), ("the city council", "voted against the tram"),
    ("Schrödinger's equation", "is linear"), ("her bicycle", "was stolen outside the library"),
    ("the glacier", "has lost a third of its ice"), ("an old vinyl record", "skips on the B side"),
    ("the password reset mail", "never arrives"), ("tomato seedlings", "need six hours of sun"),
    ("the minister", "resigned over the ferry contract"), ("a chess engine", "sacrificed its queen"),
    ("dark chocolate", "contains little sugar"), ("the lighthouse keeper", "kept a weather diary"),
    ("the compiler", "warns about an unused variable"), ("coral reefs", "bleach when the sea warms"),
    ("their wedding", "was moved indoors"), ("the stock exchange", "opened an hour late"),
    ("malaria", "is carried by mosquitoes"), ("the dentist", "found no cavities"),
    ("the carpet in room 12", "smells of smoke"), ("a quadratic form", "can be diagonalised"),
    ("the ferry", "takes forty minutes"), ("the novelist", "wrote only in the mornings"),
    ("a leaking pipe", "ruined the ceiling"), ("wolves", "returned to the forest in 2012"),
    ("the marathon", "was won in 2:04:11"), ("the algorithm", "runs in O(n log n)"),
    ("fresh snow", "covered the runway"), ("the union", "called a strike for Tuesday"),
    ("the violin teacher", "moved to Kraków"), ("a bitcoin wallet", "was emptied overnight"),
    ("the excavation", "revealed a Roman bath"), ("cinnamon", "comes from the bark of a tree"),
    ("the elevator", "stops between floors"), ("the jury", "could not agree"),
    ("the telescope", "found a planet of molten iron"), ("our neighbours", "keep bees on the roof"),
    ("the translation", "misses the irony"), ("a soft landing", "seems unlikely this year"),
)  # fmt: skip
_FRAMES = (
    "{Topic} {fact}.",
    "Did you know that {topic} {fact}?",
    "According to the report at https://example.com/item?id={number}, {topic} {fact}; nobody was surprised.",
    "I am writing to ask why {topic} {fact}, since I was told on {number} May that this could not happen any more.",
    "BREAKING: {topic} {fact} — more at {number}:00",
    "Not everybody believes it, but {topic} {fact}, and the consequences for those who live nearby, for the people who "
    "depend on it, and for whoever has to pay in the end will be argued about for at least {number} years.",
)


_SAMPLES = (
    ("a password reset", "takes two minutes"), ("March in Lisbon", "is mild"), ("the function", "returns its square"),
    ("shares of the airline", "fell sharply on Monday"), ("the flour", "is mixed with eggs and milk"),
    ("error 404", "means that the page is gone"), ("the landlord", "lost for lack of standing"),
    ("a red fox", "jumps over the sleeping dog"), ("Je ne sais pas", "is all he said"),
    ("two trains", "meet at noon"), ("this blender", "deserves five stars"), ("fever and cough", "came first"),
    ("the cup of 1966", "stayed in England"), ("the best of times", "was also the worst"),
    ("the hive", "lost its queen"), ("a ninth planet", "was never seen"),
)  # fmt: skip
# Of Python's own library: a thousand first sentences of documentation, about a thousand things.
_MODULES = (
    "argparse", "ast", "asyncio", "bisect", "calendar", "codecs", "collections", "concurrent.futures",
    "configparser", "contextlib", "copy", "csv", "dataclasses", "datetime", "decimal", "difflib", "email.message",
    "enum", "fileinput", "fractions", "functools", "getpass", "glob", "gzip", "heapq", "html", "http.client",
    "imaplib", "inspect", "io", "ipaddress", "itertools", "json", "keyword", "linecache", "locale", "logging",
    "mailbox", "math", "mimetypes", "numbers", "operator", "os", "pathlib", "pdb", "platform", "plistlib", "poplib",
    "pprint", "queue", "random", "re", "sched", "secrets", "select", "shlex", "shutil", "signal", "smtplib",
    "socket", "sqlite3", "ssl", "statistics", "string", "subprocess", "tarfile", "tempfile", "textwrap",
    "threading", "timeit", "tokenize", "traceback", "turtle", "types", "typing", "unittest", "urllib.parse",
    "urllib.request", "uuid", "warnings", "wave", "weakref", "xml.dom.minidom", "zipfile",
)  # fmt: skip
EVALUATION = 320
SAMPLES = 256


def evaluation_sentences() -> list[str]:
    """320 sentences to measure on: one of each topic above, and what Python's library says about itself."""
    plain = [_FRAMES[0].format(topic=t, Topic=t[0].upper() + t[1:], fact=fact, number=7) for t, fact in _TOPICS]
    found = _documentation()
    step = len(found) / (EVALUATION - len(plain))
    return plain + [found[int(i * step)] for i in range(EVALUATION - len(plain))]


def sample_sentences() -> list[str]:
    """256 other sentences to calibrate with: six frames a subject, each with another fact, and what else Python's
    library says about itself."""
    count = len(_SAMPLES)
    made = []
    for turn, frame in enumerate(_FRAMES):
        for index, (topic, _) in enumerate(_SAMPLES):
            fact = _SAMPLES[(index + turn * 5) % count][1]
            number = (index * 7 + turn * 3) % 19 + 2
            made.append(frame.format(topic=topic, Topic=topic[0].upper() + topic[1:], fact=fact, number=number))
    asked = set(evaluation_sentences())
    left = [sentence for sentence in _documentation() if sentence not in asked]
    step = len(left) / (SAMPLES - len(made))
    return made + [left[int(i * step)] for i in range(SAMPLES - len(made))]


def _documentation() -> list[str]:
    """First sentences of 6 to 40 words, each once, in the order of modules and names."""
    found: dict[str, None] = {}
    for name in _MODULES:
        module = import_module(name)
        for _, member in sorted(vars(module).items()):
            if getattr(member, "__module__", None) != name or not isinstance(getattr(member, "__doc__", None), str):
                continue
            text = " ".join(str(member.__doc__).split("\n\n")[0].split())
            first = text.split(". ")[0].rstrip(".") + "."
            if 6 <= len(first.split()) <= 40 and first[0].isupper() and "(" not in first[:30]:
                found.setdefault(first)
    return list(found)
