"""A window that asks about a picture: python examples/serve/window.py. Nothing but tkinter and sidecar.py beside it."""

from __future__ import annotations

import threading
import tkinter
from pathlib import Path
from tkinter import filedialog

from sidecar import Sidecar


def main() -> None:
    """Choose a picture, type a question, press Return."""
    with Sidecar() as sidecar:
        window = tkinter.Tk()
        window.title("llava-edge")
        picture = tkinter.StringVar()
        question = tkinter.Entry(window, width=60)
        answer = tkinter.Label(window, wraplength=500, justify="left")

        def choose() -> None:
            picture.set(filedialog.askopenfilename())

        def ask(_: object = None) -> None:
            answer["text"] = "…"

            def work() -> None:
                said = sidecar.ask(Path(picture.get()), question.get())
                window.after(0, lambda: answer.configure(text=said))

            threading.Thread(target=work, daemon=True).start()

        tkinter.Button(window, text="Picture …", command=choose).pack()
        tkinter.Label(window, textvariable=picture).pack()
        question.pack()
        question.bind("<Return>", ask)
        answer.pack()
        window.mainloop()


if __name__ == "__main__":
    main()
