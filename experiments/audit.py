"""Keeps what an audit found: experiments/results/audit_NAME.json, file names and numbers, no images.

Command: python experiments/audit.py AUDIT_JSON NAME [--seconds=S]
"""

import argparse
import datetime
import json
import re
from pathlib import Path

from experiments.provenance import provenance

RESULTS = Path(__file__).resolve().parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("audit", type=Path, help="audit.json as `wastejax audit` wrote it")
    parser.add_argument("name")
    parser.add_argument("--seconds", type=float, help="how long it took")
    args = parser.parse_args()
    found = json.loads(args.audit.read_text())
    model = f" --model={found['model']}" if found["model"] else ""
    result = {
        **provenance(f"python -m wastejax.main audit --data={found['data']} --out=OUT{model}"),
        "date": datetime.date.fromtimestamp(args.audit.stat().st_mtime).isoformat(),
        **({} if args.seconds is None else {"seconds": args.seconds}),
        **found,
    }
    text = json.dumps(result, indent=1, ensure_ascii=False)
    # The files of one group on one line.
    text = re.sub(r"\[\s+((?:\"[^\"]*\",?\s+)+)\]", lambda names: f"[{' '.join(names[1].split())}]", text)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"audit_{args.name}.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
