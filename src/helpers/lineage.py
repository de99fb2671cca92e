"""Lineages in every accepted notation become seven named ranks."""

import functools
import re
from collections.abc import Iterable

from helpers.texts import packaged

_PREFIX = re.compile(r"^(?:D_(?P<level>\d+)|(?P<letter>[a-z]{1,2}))__")
#: A genus or species by itself, as "Prevotella_7", "s__Staphylococcus_aureus"; no kingdom, and no higher rank.
_ALONE = re.compile(
    r"(?:[gs]__)?(?!(?:Bacteria|Archaea|Eukaryota|Fungi|Viruses|Un\w+|Other)\b)"
    r"(\[?[A-Z][a-z]{2,}\]?(?<!aceae)(?<!ales)(?<!ota)(?:-[A-Z][a-z]+)*)(?:[ _.]([a-z][a-z-]+|\d+)([ _.].*)?)?"
)
_LETTERS = {"d": 0, "k": 0, "p": 1, "c": 2, "o": 3, "f": 4, "g": 5, "s": 6}
_ORGANELLE = re.compile(r"(mitochondri(a|on)|chloroplasts?)([^a-z].*)?", re.IGNORECASE)
_WORDS = packaged("lineage.yaml")
_UNNAMED = re.compile(_WORDS["unnamed"], re.IGNORECASE)
_SEVERAL_WORDS = [(re.compile(pattern), together) for pattern, together in _WORDS["several_words"].items()]
_ORDER = re.compile(r"\w+ales|Chloroplast|Unknown Order|.* Incertae Sedis")
_FAMILY = re.compile(r"\w+aceae( \d| \(Subgroup \d+\))?|Mitochondria|Unknown Family|Family [IVX]+")


def _named(text: str) -> str:
    """The name, or "" where it says only that there is none."""
    text = text.strip().strip("_").strip()
    return "" if _UNNAMED.fullmatch(text.replace("_", " ").replace(".", " ").strip()) else text


def is_organelle(ranks: Iterable[str]) -> bool:
    """Whether a lineage is of mitochondria or chloroplasts, at whatever rank a taxonomy puts them.

    SILVA has a family *Mitochondria* and an order *Chloroplast*, Greengenes a family *mitochondria* and a class
    *Chloroplast*, mothur's files "Chloroplast_or". RDP's phylum "Cyanobacteria/Chloroplast" holds bacteria, too.
    """
    return any(_names_organelle(rank) for rank in ranks)


@functools.lru_cache(maxsize=2**14)
def _names_organelle(rank: str) -> bool:
    return _ORGANELLE.fullmatch(rank) is not None


def species_name(genus: str, text: str) -> str:
    """The binomial "Genus epithet", or "" where the entry is not a species of that genus.

    An epithet alone (Greengenes, DADA2) is joined with the genus. A first word that is another genus (a contradiction
    between the ranks, as in "Corynebacterium diphtheriae" under *Staphylococcus*), "sp.", "bacterium" and several
    epithets ("aureus/epidermidis") give no name. Strain and subspecies are left out, since claims are about species.
    """
    stem = re.sub(r"[ _]\d+$", "", genus)  # SILVA numbers the parts of a genus: "Corynebacterium 1"
    if not genus or not (text := _named(text)):
        return ""
    for first in (genus, stem, stem.strip("[]"), *re.split(r"[-/ ]", stem)):
        if re.match(rf"{re.escape(first)}[ _.]", text):
            stem, text = first, text[len(first) + 1 :]
            break
    else:
        text = text if re.fullmatch(r"[a-z][a-z-]+", text) else ""
    epithet = re.match(r"[a-z][a-z-]+(\d{6,}|_[A-Z]+)?(?=[ _.]|$)", text)  # GTDB: "aureus_A", "sp900123456"
    return f"{stem} {epithet[0]}" if epithet and epithet[0] not in _WORDS["no_epithet"] else ""


def _genus_and_species(tail: list[str]) -> tuple[str, str]:
    """The last two ranks of a dotted name, from the words after its family: rule 4 of `dotted_ranks`."""
    if len(tail) > 2 and re.fullmatch(r"\d{1,2}", tail[1]):
        tail = [f"{tail[0]} {tail[1]}", *tail[2:]]  # "Corynebacterium.1", "Prevotella.7"
    if len(tail) < 2 or not _named(tail[0]):
        return "", ""
    capitals = next((k for k, word in enumerate(tail) if not re.match(r"[\[A-Z]", word)), len(tail))
    at = next((k for k in range(1, len(tail)) if not _named(tail[k])), 0)
    if len(tail) == 2:
        at = 1
    elif not at and not _FAMILY.fullmatch(tail[0]) and (capitals < 3 or re.fullmatch("[a-z]+", tail[capitals])):
        at = max(capitals - 1, 1)
    sure = at and all(re.match(r"[\[A-Z\d]|group$", word) for word in tail[:at])
    return (" ".join(tail[:at]), " ".join(tail[at:])) if sure else ("", "")


def dotted_ranks(name: str) -> list[str]:
    """Seven ranks of a name whose ranks are joined by dots, and that may have dots inside ranks; "" if not certain.

    Such names come from R, whose ``make.names`` turns blanks, hyphens and brackets into dots too. A rank is named only
    where that is certain:

    1. Known ranks of several words are put together ("Family.XI", "Candidatus.X", "..Subgroup.4.").
    2. If seven words are left, each is a rank: there are seven ranks and none is empty.
    3. Else the suffixes anchor: the first *-ales* is the order, the *-aceae* after it the family (bacteriological
       nomenclature, and no rank above has them). An anchor behind "uncultured" is part of a description.
    4. After the family, the species begins at "__", at "uncultured" and the like, else at the last of the leading
       capitalised words ("Staphylococcus.Staphylococcus.aureus"), or after the only one. Blanks stand for the dots
       inside a genus.
    5. What is not reached so is "", kingdom and phylum aside.
    """
    for pattern, together in _SEVERAL_WORDS:
        name = pattern.sub(together, name)
    words = name.split(".")
    if len(words) == 7:
        return words
    unnamed = [not _named(word) and not re.search("Unknown|Incertae", word) for word in words]
    described = next((i for i, is_unnamed in enumerate(unnamed) if is_unnamed), len(words))
    order = next((i for i in range(3, described) if _ORDER.fullmatch(words[i])), None)
    first = order + 1 if order else 4
    among = range(first, min(first + 1, described) if order else described)
    family = next((i for i in among if _FAMILY.fullmatch(words[i])), None)
    ranks = [words[0], words[1] if re.fullmatch(r"[A-Z][a-z-]{3,}(-[A-Z][a-z]+)?", words[1]) else "", *[""] * 5]
    if order:
        ranks[2:4] = [words[2] if order == 3 else "", words[order]]
    if family:
        ranks[4:] = [words[family], *_genus_and_species([w for w in words[family + 1 :] if w])]
    return ranks


def parse_lineage(text: str) -> list[str]:
    """Seven normalised ranks of one lineage, kingdom to species, the species as a binomial; "" where there is no name.

    Greengenes (``k__…; s__epithet``), SILVA (``d__``, ``D_0__``), GTDB (``s__Genus species``), seven plain ranks joined
    by ``;`` or ``|``, and dotted names (`dotted_ranks`). The name of a genus or species alone is one.
    """
    if alone := _ALONE.fullmatch(text.strip()):
        genus = alone[1] + (f" {alone[2]}" if (alone[2] or "").isdigit() else "")
        return [*[""] * 5, genus, species_name(alone[1], f"{alone[1]} {alone[2]}")]
    parts = re.split(r"\s*[;|]\s*|\.+(?=(?:[dkpcofgs]|D_\d)__)", text.strip())
    if len(parts) == 1 and text.count(".") >= 6:
        parts = dotted_ranks(text)
    ranks = [""] * 7
    for i, part in enumerate(parts):
        if prefix := _PREFIX.match(part):
            i = int(prefix["level"]) if prefix["level"] else _LETTERS.get(prefix["letter"], 7)
        if i < 7:
            ranks[i] = _named(re.sub(r"\(\d+\)$", "", part[prefix.end() :] if prefix else part))  # mothur: support
    return [*ranks[:6], species_name(ranks[5], ranks[6])]
