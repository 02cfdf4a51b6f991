#!/usr/bin/env bash
# ftfy 6.3.1: what restore_byte_a0=False forbids is done all the same, by another repair
#
# "voil\u00c3 le travail" has a space where mojibake had a no-break space. With restore_byte_a0=False ftfy is not to take
# that space for one. As a whole the text is then left alone, but the next repair, decode_inconsistent_utf8, takes the
# piece "\u00c3 " and repairs it with settings of its own, the defaults, in which the space is taken for one. So the
# setting changes nothing, for a text of this kind in curly quotes as well. One expects the settings that were given to
# hold for every repair.
#
# Seen when this was written: with restore_byte_a0=False both texts become "voil\u00e0", explained by
# decode_inconsistent_utf8 alone; only with that one switched off, too, they stay as they are.
# Ends with 0 as long as this is so, with 1 once it is otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install ftfy==6.3.1
cat > "$folder/show.py" <<'PYTHON'
import sys

from ftfy import TextFixerConfig, fix_encoding_and_explain

as_written = True
for text in ("voil\u00c3 le travail", "\u201cvoil\u00c3 le travail\u201d"):
    repaired = text.replace("\u00c3", "\u00e0")
    off = fix_encoding_and_explain(text, TextFixerConfig(restore_byte_a0=False))
    both_off = fix_encoding_and_explain(text, TextFixerConfig(restore_byte_a0=False, decode_inconsistent_utf8=False))
    print(ascii(text), "restore_byte_a0=False:", ascii(off.text), [step.parameter for step in off.explanation or []])
    print(ascii(text), "and decode_inconsistent_utf8=False:", ascii(both_off.text))
    as_written &= off.text == repaired and both_off.text == text
    as_written &= [step.parameter for step in off.explanation or []] == ["decode_inconsistent_utf8"]
print("as written" if as_written else "otherwise")
sys.exit(0 if as_written else 1)
PYTHON
"$folder/venv/bin/python" "$folder/show.py" 2> "$folder/log" || { tail -5 "$folder/log"; echo "otherwise than written above"; exit 1; }
