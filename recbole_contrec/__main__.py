"""``python -m recbole_contrec``, the same as the command ``recbole_contrec`` and as ``run_recbole_contrec.py``."""

from recbole_contrec.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
