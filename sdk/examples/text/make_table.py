#!/usr/bin/env python3
"""Writes fold_table.h: what each letter becomes in lower case and without diacritics.

From the Unicode data of the Python that runs it: case folding, canonical decomposition, marks dropped.
Letters whose stroke or hook Unicode does not see as a mark are listed here. `make_table.py > fold_table.h`
"""
import unicodedata

BLOCKS = [(0x00C0, 0x024F), (0x0370, 0x052F), (0x1E00, 0x1EFF)]
LETTERS = {
    "æ": "ae", "ð": "d", "ø": "o", "þ": "th", "đ": "d", "ħ": "h", "ı": "i", "ĳ": "ij", "ĸ": "q",
    "ŀ": "l", "ł": "l", "ŉ": "n", "ŋ": "n", "œ": "oe", "ŧ": "t", "ſ": "s", "ƀ": "b", "ɓ": "b", "ƃ": "b",
    "ƈ": "c", "ɖ": "d", "ɗ": "d", "ƌ": "d", "ɛ": "e", "ƒ": "f", "ɠ": "g", "ɨ": "i", "ƙ": "k", "ƚ": "l",
    "ɲ": "n", "ƞ": "n", "ɵ": "o", "ƥ": "p", "ƫ": "t", "ƭ": "t", "ʈ": "t", "ʋ": "v", "ƴ": "y", "ƶ": "z",
    "ǥ": "g", "ȡ": "d", "ȥ": "z", "ȴ": "l", "ȵ": "n", "ȶ": "t", "ȷ": "j", "ȼ": "c", "ⱥ": "a", "ⱦ": "t",
    "ȿ": "s", "ɀ": "z", "ʉ": "u", "ɇ": "e", "ɉ": "j", "ɋ": "q", "ɍ": "r", "ɏ": "y", "ỿ": "y", "ỻ": "ll",
    "ỽ": "v", "ǆ": "dz", "ǉ": "lj", "ǌ": "nj", "ǳ": "dz",
}


def fold(char):
    out = ""
    for c in unicodedata.normalize("NFD", char.casefold()):
        if unicodedata.combining(c) == 0:
            out += LETTERS.get(c, c)
    return out


print("/* What each letter of a few blocks becomes: two UTF-16 units, 0 = none. Written by make_table.py. */")
for first, last in BLOCKS:
    print(f"static const uint16_t fold_{first:04x}[][2] = {{")
    row = []
    for code in range(first, last + 1):
        text = fold(chr(code)) if unicodedata.category(chr(code)) != "Cn" else chr(code)
        if unicodedata.category(chr(code)).startswith("M"):
            text = ""
        units = [ord(c) for c in text] + [0, 0]
        assert len(text) <= 2 and max(units) < 0x10000, (chr(code), text)
        row.append(f"{{{units[0]:#x},{units[1]:#x}}}")
        if len(row) == 8 or code == last:
            print("  " + ",".join(row) + ",")
            row = []
    print("};")
