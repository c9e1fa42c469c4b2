"""A window that asks about a picture: python examples/serve/window.py. Nothing but tkinter and sidecar.py beside it."""

from __future__ import annotations

import queue
import threading
import tkinter
from pathlib import Path
from tkinter import filedialog, ttk

from sidecar import Sidecar, SidecarError

EVERY = 50  # milliseconds


class Window(tkinter.Tk):
    """Choose a picture, type a question, press Return."""

    def __init__(self, sidecar: Sidecar) -> None:
        """A window that asks ``sidecar``."""
        super().__init__()
        self.title("llava-edge")
        self.minsize(480, 240)
        self._sidecar = sidecar
        self._pieces: queue.SimpleQueue[str | None] = queue.SimpleQueue()  # tkinter belongs to one thread
        self.picture = tkinter.StringVar()
        self.choose = ttk.Button(self, text="Picture …", command=self._choose)
        self.choose.grid(row=0, column=0, padx=8, pady=8)
        ttk.Label(self, textvariable=self.picture, wraplength=360).grid(row=0, column=1, sticky="w", padx=8)
        ttk.Label(self, text="Question").grid(row=1, column=0, padx=8)
        self.question = ttk.Entry(self)
        self.question.grid(row=1, column=1, sticky="ew", padx=8)
        self.question.bind("<Return>", self._ask)
        self.answer = tkinter.Text(self, height=8, wrap="word", state="disabled")
        self.answer.grid(row=2, column=0, columnspan=2, sticky="nsew", padx=8, pady=8)
        self.columnconfigure(1, weight=1)
        self.rowconfigure(2, weight=1)
        self.question.focus()
        self.after(EVERY, self._show)

    def _choose(self) -> None:
        self.picture.set(filedialog.askopenfilename(parent=self) or self.picture.get())

    def _ask(self, _: object) -> None:
        if self.question.instate(["disabled"]):
            return
        picture, question = Path(self.picture.get()), self.question.get()
        self.question.state(["disabled"])  # until the answer is there
        self._write("", clear=True)
        threading.Thread(target=self._work, args=(picture, question), daemon=True).start()

    def _work(self, picture: Path, question: str) -> None:
        try:
            self._sidecar.wait()
            for piece in self._sidecar.stream(picture, question):
                self._pieces.put(piece)
        except (OSError, SidecarError) as error:
            self._pieces.put(str(error))
        self._pieces.put(None)

    def _show(self) -> None:
        while not self._pieces.empty():
            piece = self._pieces.get()
            if piece is None:
                self.question.state(["!disabled"])
            else:
                self._write(piece)
        self.after(EVERY, self._show)

    def _write(self, text: str, *, clear: bool = False) -> None:
        self.answer["state"] = "normal"
        if clear:
            self.answer.delete("1.0", "end")
        self.answer.insert("end", text)
        self.answer["state"] = "disabled"
        self.answer.see("end")


if __name__ == "__main__":
    with Sidecar() as server:
        Window(server).mainloop()
