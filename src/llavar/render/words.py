"""What the renderer writes: words, numbers and strings without any meaning.

Words are split into a training part and a held-out part by a hash of the word, so that a model that is
evaluated on held-out words has never been shown them. Strings of random characters make reading
necessary: no language prior can guess them.
"""

from __future__ import annotations

import random
import zlib

_WORDS = """
able acre actor agent album alley amber angle ankle apple april apron arena arrow ashes aspen atlas attic
audio august autumn award bacon badge baker bamboo banjo banner barley barrel basil basket beach beacon beard
beetle bell bench berry bicycle birch bishop blade blanket blaze bloom board border bottle bottom branch brave
bread breeze brick bridge bright bronze broom brother brush bucket buffalo builder bundle butter button cabin
cactus camel camera candle canoe canvas canyon captain carbon cargo carpet carrot castle cattle cedar cellar
cement center chain chalk chapel cherry chess chief chimney choir cider cinema circus citrus city civil clay
clever cliff clinic clock cloud clover coach coast cobalt coffee collar comet compass copper coral corner
cotton cougar county cousin cradle crane crater cream cricket crown cruise crystal cup curtain custom cycle
daily dairy daisy dance dancer dawn debate december deep deer delta desert design diamond dinner direct doctor
dollar dolphin domain donkey double dragon drama dream drift drum dusk eagle early earth east echo editor
effort eight elbow elder elephant eleven ember emerald empire engine equal escape estate evening exit expert
fabric factor falcon family famous farmer father feather fence fern festival fever fiber field fifty figure
final finger fire fiscal flame flash fleet flight floor flour flower fluid flute foam focus forest forge fork
fortune forum fossil fox frame france fresh friday frost fruit galaxy garden garlic gate gentle giant ginger
girl glacier glass globe glove gold golden good grain grand granite grape gravel great grove guest guide
guitar gypsum habit hammer harbor harvest hazel health heart hedge helmet herald hermit hero hidden highway
hill hockey hollow honey horizon horse hotel house humble hunter hybrid iceberg idea igloo image index indigo
inlet insect island ivory ivy jacket jaguar january jasmine jersey jewel jigsaw journey judge juice july jumbo
jungle junior kayak kernel kettle keyboard kidney kingdom kitchen kite knight label ladder lagoon lake lamp
lantern laser launch laurel lava lawyer leader leaf legend lemon letter level liberty library light lilac
linen lion liquid lizard local locket lodge lotus lucky lumber lunar magic magnet major mango manor maple
marble march margin market marsh master meadow medal melody melon member mercury merit metal meteor middle
midnight mill mint mirror model modern monday monkey moon morning mosaic mother motor mountain museum music
mustang narrow native nature nectar needle nephew nickel night noble north notice novel number nurse nutmeg
oak oasis ocean octave office olive onion opera orange orbit orchard orchid organ origin osprey otter outdoor
oxygen oyster paddle palace palm panda paper parade parcel park parrot pasta pastel patrol peach pearl pebble
pelican pencil penguin pepper perfect person petal piano picnic pigeon pilot pine pioneer pirate pixel planet
plaza plum pocket poem polar pony poplar portal potato powder prairie prince prism prize profit public puddle
pulse pumpkin puppet purple puzzle quartz queen quick quiet quilt rabbit radar radio rail rain ranger rapid
raven ready rebel record reed region relay rescue ribbon rider ridge ring ripple river road robin rocket roman
roof root rose round royal rubber ruby runner rustic saddle safari sail salad salmon salt sand satin saturn
sauce scarf school scout season secret senate sequel shadow shelter shield shore silent silk silver simple
singer sister skate sketch skill sky sleigh smooth snow soccer social sofa solar sonata sound south space
spark spice spider spirit spring spruce square stable stage star station steam steel stereo stone storm story
stream street studio sugar summer summit sunday sunset super surf swan sweet sword symbol table talent tango
target tea temple tender tennis theater thunder ticket tiger timber toast tomato topaz torch total tower track
traffic trail train travel treaty tribe triple tropic trophy truck trumpet tulip tunnel turbo turtle twelve
twin ultra umbrella uncle union unique upper urban valley vanilla vapor velvet vendor venus verse vessel
village vinegar violet violin vision vital vivid volcano voyage waffle wagon walnut warm water wave weather
wedding west whale wheat wheel whisper white wicker widow wild willow window winter wisdom wizard wolf wonder
wood woven yacht yard yellow yoga young zebra zenith zero zinc
"""

_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_DIGITS = "0123456789"
_MARKS = "!?.,:;-&%$#@/+*()'\""


def is_held_out(word: str) -> bool:
    """Whether ``word`` (any case) belongs to the fifth of the list that training never shows."""
    return zlib.crc32(word.lower().encode()) % 5 == 0


def vocabulary(*, held_out: bool) -> tuple[str, ...]:
    """The words of one part, in a fixed order."""
    return tuple(word for word in _WORDS.split() if is_held_out(word) == held_out)


def cased(rng: random.Random, text: str) -> str:
    """``text`` as a sign writer might set it: capitals, title case or small letters."""
    return rng.choice((str.upper, str.title, str.lower, str.upper))(text)


def number(rng: random.Random) -> str:
    """A number as it is printed: a count, a year, a price or a percentage."""
    kind = rng.randrange(5)
    if kind == 0:
        return str(rng.randint(1900, 2049))
    if kind == 1:
        return f"${rng.randint(1, 99)}.{rng.randint(0, 99):02d}"
    if kind == 2:
        return f"{rng.randint(1, 99)}%"
    return str(rng.randint(0, 10 ** rng.randint(1, 5)))


def random_string(rng: random.Random, length: int, *, doubled: float = 0.0) -> str:
    """Characters without meaning: mostly letters of one case, else a mixture with digits and marks.

    Each is by a chance of ``doubled`` the one before it: by lot, letters hardly ever come twice, as those of
    words do.
    """
    kind = rng.random()
    pool = _LETTERS
    if kind < 0.25:
        pool = _LETTERS.upper()
    elif kind < 0.4:
        pool = _DIGITS
    elif kind < 0.7:
        pool = _LETTERS + _LETTERS.upper() + _DIGITS
    elif kind < 0.85:
        pool = _LETTERS + _LETTERS.upper() + _DIGITS * 2 + _MARKS
    drawn = rng.choice(pool) if length else ""
    while len(drawn) < length:
        drawn += drawn[-1] if doubled and rng.random() < doubled else rng.choice(pool)
    return drawn


def word(rng: random.Random, *, held_out: bool) -> str:
    """One word of the list, in small letters."""
    return rng.choice(_part(held_out))


def phrase(rng: random.Random, *, held_out: bool, length: int) -> str:
    """Words, and now and then a number, up to ``length`` characters; at least one word."""
    parts = [word(rng, held_out=held_out)]
    while len(" ".join(parts)) < length - 3:
        part = number(rng) if rng.random() < 0.12 else word(rng, held_out=held_out)
        if len(" ".join([*parts, part])) > length:
            break
        parts.append(part)
    return cased(rng, " ".join(parts))


_TRAIN, _HELD_OUT = vocabulary(held_out=False), vocabulary(held_out=True)


def _part(held_out: bool) -> tuple[str, ...]:
    return _HELD_OUT if held_out else _TRAIN
