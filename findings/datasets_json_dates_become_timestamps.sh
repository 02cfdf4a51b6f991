#!/usr/bin/env bash
# datasets 5.2.0: a JSON column whose texts are all dates is read as timestamps, and is trained as another text
#
# A model is tuned to take dates out of letters; each row has a prompt, and a completion such as "2024-05-01". All of them
# are strings in the file. load_dataset("json") makes timestamps of the column, so a formatting function writes
# "2024-05-01 00:00:00", and "2024-05-01T09:30:00+02:00" becomes 07:30 without a zone. With features that say string the
# column is called one, and holds the changed text all the same. One row that is no date, such as "unknown", keeps the
# whole column as it is, so a sample may be read otherwise than the whole file. One expects that a JSON string stays a
# string. Nothing is said, and the loss looks as usual: the model learns a form that nobody wrote. Read such a file with
# the json module and hand the rows to Dataset.from_list.
#
# Seen when this was written: timestamp[s] and "Answer: 2024-05-01 00:00:00"; with features string and the same text; with
# one more row, and by from_list, string and "Answer: 2024-05-01".
# Ends with 0 as long as this is so, with 1 once it is otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install datasets==5.2.0
cat > "$folder/show.py" <<'PYTHON'
import json
import sys
from pathlib import Path

from datasets import Dataset, Features, Value, load_dataset

folder = Path(sys.argv[1])
DATES = [
    {"prompt": "Signed on the first of May 2024. When?", "completion": "2024-05-01"},
    {"prompt": "Due at the end of January 2023. When?", "completion": "2023-01-31"},
]
ZONE = [{"prompt": "When does it open?", "completion": "2024-05-01T09:30:00+02:00"}]
UNKNOWN = [{"prompt": "It was signed. When?", "completion": "unknown"}]
TEXTS = Features({"prompt": Value("string"), "completion": Value("string")})


def read(name, rows, **how):
    """The type of the column, and what a formatting function makes of the first row."""
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = load_dataset("json", data_files=str(path), split="train", cache_dir=str(folder / "cache"), **how)
    formatted = data.map(lambda row: {"text": f"Answer: {row['completion']}"})
    seen = (data.features["completion"].dtype, formatted[0]["text"])
    print(f"{name}:", *seen)
    return seen


seen = [read("dates", DATES), read("zone", ZONE), read("with_unknown", DATES + UNKNOWN)]
seen.append(read("with_features", DATES, features=TEXTS))
listed = Dataset.from_list(DATES)
seen.append((listed.features["completion"].dtype, f"Answer: {listed[0]['completion']}"))
print("from_list:", *seen[-1])
as_written = seen == [
    ("timestamp[s]", "Answer: 2024-05-01 00:00:00"),
    ("timestamp[s]", "Answer: 2024-05-01 07:30:00"),
    ("string", "Answer: 2024-05-01"),
    ("string", "Answer: 2024-05-01 00:00:00"),
    ("string", "Answer: 2024-05-01"),
]
print("as written" if as_written else "otherwise")
sys.exit(0 if as_written else 1)
PYTHON
"$folder/venv/bin/python" "$folder/show.py" "$folder" 2> "$folder/log" || { tail -5 "$folder/log"; echo "otherwise than written above"; exit 1; }
