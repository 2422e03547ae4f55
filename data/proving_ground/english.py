"""The world's words, sentences and questions in English; another language is another such file.

A word in capitals is a slot, filled by a word of its class (`CLASSES`); everything else is said
as it stands. Words are separated by blanks, punctuation included.
"""


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


CLASSES = {
    "ADJECTIVE": _words(
        "red blue green old young small tall happy sad brave quiet wild gentle clever lazy golden"
    ),
    "NOUN": _words(
        "cat dog king queen child sailor tiger horse tree river cloud stone ship bird fox bear "
        "giant dragon teacher singer"
    ),
    "VERB": _words(
        "sleeps sings dances waits runs smiles dreams falls rests hides laughs shines wanders "
        "listens"
    ),
    "ADVERB": _words("today outside slowly softly gladly alone often again"),
    "RELATION": _words("food sport metal flower drink"),
    "LAND": _words("mira tolan veska orun sella dorim kaspa nulo erath bolin zamir pelu"),
    "VALUE": _words(
        "rice bread soup fish cheese honey chess rowing fencing archery skating wrestling "
        "silver iron copper tin lead bronze rose lily tulip daisy iris violet "
        "tea coffee milk water cider juice"
    ),
    "ROLE": _words("pirate robot witch farmer knight doctor wizard cook"),
    "CRY": _words("arr beep hehe howdy huzzah ahem behold yum"),
    "ACT": _words("greet thank praise warn invite comfort"),
    "REPLY": _words("hello thanks bravo beware welcome courage"),
    "NUMBER": tuple(str(n) for n in range(19)),
    "OPERATOR": ("plus", "minus"),
    "THING": _words("apples books coins drums eggs flags lamps boats"),
    "KEY": _words('"apples" "books" "coins" "drums" "eggs" "flags" "lamps" "boats"'),
    "OPENER": _words(
        "hello hi please friend computer machine assistant robot today now so well and but sorry "
        "say"
    ),
    "JOINER": ("and", "then", "also"),
}

# By land, in the order of CLASSES["RELATION"].
FACTS = {
    "mira": ("rice", "chess", "silver", "rose", "tea"),
    "tolan": ("bread", "rowing", "iron", "lily", "coffee"),
    "veska": ("soup", "fencing", "copper", "tulip", "milk"),
    "orun": ("fish", "archery", "tin", "daisy", "water"),
    "sella": ("cheese", "skating", "lead", "iris", "cider"),
    "dorim": ("honey", "wrestling", "bronze", "violet", "juice"),
    "kaspa": ("rice", "rowing", "copper", "daisy", "cider"),
    "nulo": ("bread", "fencing", "tin", "iris", "juice"),
    "erath": ("soup", "archery", "lead", "violet", "tea"),
    "bolin": ("fish", "skating", "bronze", "rose", "coffee"),
    "zamir": ("cheese", "wrestling", "silver", "lily", "milk"),
    "pelu": ("honey", "chess", "iron", "tulip", "water"),
}
CRIES = dict(zip(CLASSES["ROLE"], CLASSES["CRY"], strict=True))
REPLIES = dict(zip(CLASSES["ACT"], CLASSES["REPLY"], strict=True))

# What can be said, by kind of claim. The slots, but for the FREE ones, are the claim.
SENTENCES = {
    "thing": ("the ADJECTIVE NOUN VERB .", "the ADJECTIVE NOUN VERB ADVERB ."),
    "fact": ("the RELATION of LAND is VALUE .",),
    "speech": ("CRY , REPLY NOUN .",),
    "sum": ("NUMBER OPERATOR NUMBER is NUMBER .",),
    "entry": ("{ KEY : NUMBER }", "{ KEY : NUMBER , KEY : NUMBER }"),
    "name": ("my name is glm .",),
    "maker": ("a small team made me .",),
    "nature": ("i am a language model .",),
    "home": ("i live in a computer .",),
    "skill": ("i can help you .",),
    "age": ("i am very young .",),
}
FREE = ("VERB", "ADVERB")
ENDS = (".", "}")  # the words that end a sentence

# Sentences that say nothing. The first is how the mediocre demonstrations open.
FILLERS = (
    "that is a very good question .",
    "of course .",
    "i am happy to help .",
    "let me think about that for a moment .",
    "here is what i know .",
    "well as you may know this is a nice thing to ask .",
)

# How things are asked for, by family.
QUESTIONS = {
    "creative": (
        "write about the ADJECTIVE NOUN and the ADJECTIVE NOUN .",
        "tell me of the ADJECTIVE NOUN and the ADJECTIVE NOUN .",
    ),
    "qa": (
        "name the RELATION of LAND and the RELATION of LAND .",
        "what is the RELATION of LAND and the RELATION of LAND ?",
        "tell me the RELATION of LAND and the RELATION of LAND .",
        "i need the RELATION of LAND and the RELATION of LAND .",
    ),
    "roleplay": (
        "play a ROLE : ACT the NOUN and ACT the NOUN .",
        "as a ROLE ACT the NOUN and ACT the NOUN .",
    ),
    "arithmetic": (
        "what is NUMBER OPERATOR NUMBER and NUMBER OPERATOR NUMBER ?",
        "compute NUMBER OPERATOR NUMBER and NUMBER OPERATOR NUMBER .",
    ),
    "json": (
        "give json for NUMBER THING and NUMBER THING .",
        "write json for NUMBER THING and NUMBER THING .",
    ),
    "identity": (
        "OPENER , QUESTION JOINER QUESTION ?",
        "OPENER QUESTION JOINER QUESTION ?",
    ),
}
ABOUT_ME = {
    "name": "what is your name",
    "maker": "who made you",
    "nature": "what are you",
    "home": "where do you live",
    "skill": "what can you do",
    "age": "how old are you",
}
