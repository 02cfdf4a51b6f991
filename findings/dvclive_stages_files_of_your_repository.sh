#!/usr/bin/env bash
# dvclive 3.49.1: Live(save_dvc_exp=False) in a git repository makes a DVC repository of it, and stages files in git
#
# Who logs metrics with dvclive and wants no DVC experiments sets save_dvc_exp=False. In a git repository that is no DVC
# repository the first Live runs `dvc init` all the same: it makes .dvc/ and .dvcignore and adds them to git's index. The
# next `git commit` takes them along, whatever else it was for. One expects a folder of metrics, and nothing staged.
#
# Seen when this was written: .dvc/.gitignore, .dvc/config and .dvcignore are staged, and dvc.yaml is written; in a folder
# that is no git repository there is no .dvc.
# Ends with 0 as long as this is so, with 1 once it is otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install dvclive==3.49.1
cat > "$folder/train.py" <<'PYTHON'
from dvclive import Live

with Live(save_dvc_exp=False) as live:
    for step in range(2):
        live.log_metric("loss", 1 / (step + 1))
        live.next_step()
PYTHON
export DVC_NO_ANALYTICS=true HOME="$folder"
mkdir "$folder/plain" "$folder/repository"
git -C "$folder/repository" init --quiet
git -C "$folder/repository" -c user.name=me -c user.email=me@example.org commit --quiet --allow-empty -m "Begin"
for place in plain repository; do
    (cd "$folder/$place" && "$folder/venv/bin/python" "$folder/train.py" > "$folder/log" 2>&1) ||
        { tail -5 "$folder/log"; echo "otherwise than written above"; exit 1; }
done
staged=$(git -C "$folder/repository" diff --cached --name-only | sort | tr '\n' ' ')
echo "staged in the repository: $staged"
echo "in the plain folder: $(ls -A "$folder/plain" | tr '\n' ' ')"
if [ "$staged" = ".dvc/.gitignore .dvc/config .dvcignore " ] && [ ! -e "$folder/plain/.dvc" ]; then
    echo "as written"
else
    echo "otherwise than written above"
    exit 1
fi
