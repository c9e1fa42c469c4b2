"""A folder as ``benchmark build`` writes it, made by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image

PICTURES = 3
BROKEN = b"\x89PNG\r\n\x1a\n broken"


def own_benchmark(folder: Path, count: int = PICTURES) -> Path:
    """Drafts "draft 0", "draft 1" … of the questions "Question 0?" …, none confirmed."""
    (folder / "pictures").mkdir(parents=True)
    records: list[dict[str, Any]] = []
    for number in range(count):
        Image.new("RGB", (40 + number, 30), (60 * number, 100, 200)).save(folder / "pictures" / f"{number}.png")
        turns = [("human", f"<image>\nQuestion {number}?"), ("gpt", f"draft {number}")]
        records.append(
            {
                "id": f"{number + 1:04d}",
                "image": f"pictures/{number}.png",
                "type": "all",
                "metric": "judged",
                "conversations": [{"from": who, "value": text} for who, text in turns],
                "confirmed": False,
                "drafted_by": "demo",
                "blind": "said blind" if number == 1 else "",
            }
        )
    (folder / "questions.json").write_text(json.dumps(records))
    (folder / "card.md").write_text("# own\n\n<!-- answers -->\nnone\n<!-- end of answers -->\n\n## Licences\nmine\n")
    return folder
