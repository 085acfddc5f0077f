"""Train, evaluate and recommend: ``python run_recbole_contrec.py --model=ContRec --dataset=ml-100k``."""

from recbole_contrec.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
