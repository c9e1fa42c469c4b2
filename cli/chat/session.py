"""One run of ``llava-edge chat``: entries in, answers out."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from ...runtime.errors import Cancelled, ContextError, LlavaEdgeError, OptionError, amount, listed
from ...runtime.model import Model
from ...runtime.options import Detail, GenerationOptions
from ...runtime.pictures.encoded import EncodedImage
from ...runtime.system.storage import file_sha256
from ..terminal.answers import stages
from ..terminal.progress import Bar, columns, note, statistics
from ..terminal.visible import name_of, printable, visible
from . import transcript
from .conversation import Asked, Conversation
from .lines import GONE, Entry, Lines
from .named import NamedConversation, find_file
from .settings import changed
from .signals import ending_cleanly, forget_output, interruptible
from .slash import find, help_text, superfluous, unknown
from .words import PICTURE, as_path, dropped_paths, file_word, file_words, split_words, typed_paths, web_pictures

SHOWN = 60
"""Characters of a question that a message repeats."""


class _PictureStopped(OptionError):
    """Ctrl-C while a picture was read; within the session it is said, and the chat goes on."""


class Session:
    """A conversation at a terminal or behind a pipe."""

    def __init__(
        self,
        model: Model,
        system: str | None,
        sampling: GenerationOptions,
        named: NamedConversation | None = None,
        *,
        verbose: bool = False,
    ) -> None:
        """``verbose`` says behind each answer what its stages took."""
        self._model = model
        self._named, self._verbose = named, verbose
        self._sampling = sampling
        self._told: tuple[str, ...] = ()
        self.conversation = Conversation(model, system)
        self._commands: dict[str, Callable[[str], object]] = {
            "/image": self._image,
            "/set": self._set,
            "/system": self._system,
            "/retry": self._retry,
            "/undo": self._undo,
            "/save": self._save,
            "/clear": self._clear,
            "/stats": self._stats,
            "/help": lambda _: note(help_text(columns())),
        }

    def begin(self, lines: Lines, given: list[str]) -> None:
        """Take up the conversation of this name, and encode the ``given`` pictures.

        Raises ImageError, and KeyboardInterrupt at Ctrl-C: no session has begun that it could leave as it was.
        """
        try:
            self.add_images(self.resume(lines, given))
        except _PictureStopped:
            raise KeyboardInterrupt from None

    def resume(self, lines: Lines, given: list[str]) -> list[str]:
        """Go on with the conversation of this name; return the ``given`` pictures that are not its own already.

        Raises DataError for a conversation that can't be read, ImageError for a picture that is nowhere, StorageError.
        """
        if self._named is None:
            return given
        turns = self._named.turns()
        images, known = [], set()
        for picture in (one for turn in turns for one in turn.pictures):
            path = find_file(picture, given, lambda one, wrong: self._ask_where(one.name, wrong, lines))
            images.append(self._encode(path, "low" if picture.low else "high", picture.picture_tokens))
            known.add(picture.sha256)
        self.conversation.restore([turn.message for turn in turns], images)
        if turns:
            asked = sum(turn.role == "user" for turn in turns)
            talked = f"{amount(asked, 'question')} about {amount(len(images), 'picture')}"
            note(f"{self._named.name}: going on after {talked}")
        return [path for path in given if not os.path.isfile(path) or file_sha256(Path(path)) not in known]

    @staticmethod
    def _ask_where(name: str, wrong: str, lines: Lines) -> str | None:
        """Where a picture is now, as a person at a terminal says it, or drops it there; ``wrong`` was said before."""
        if not lines.interactive:
            return None
        if wrong:
            note(f"{visible(wrong)} has another content, or is not there")
        note(f"where is {visible(name)} now? Its file, or an empty line to leave")
        entry = lines.read()
        if entry is None or not entry.text:
            return None
        try:
            return typed_paths(entry.text)[0]
        except OptionError:  # an open quote, a pattern without a file
            return entry.text

    def run(self, lines: Lines) -> None:
        """Read entries until the end of input, /quit, or a second Ctrl-C in a row at the prompt (KeyboardInterrupt).

        A terminal that has gone ends it without a word.
        """
        try:
            with ending_cleanly():
                if lines.interactive:
                    note(f"{name_of(self._model.manifest.name)}: ask about your pictures; /help lists the commands")
                try:
                    self._converse(lines)
                except KeyboardInterrupt:
                    self._say_what_is_not_kept()
                    raise
                self._say_what_is_not_kept()
        except OSError as error:
            if isinstance(error, LlavaEdgeError) or error.errno not in GONE:
                raise
            forget_output()
        finally:
            lines.close()

    def _say_what_is_not_kept(self) -> None:
        """Name the pictures that wait for a question: a conversation is kept as what was said about its own."""
        if self._named is not None and self.conversation.waiting:
            names = listed([visible(image.name) for image in self.conversation.waiting])
            note(f"not kept in {visible(self._named.name)}, as no question was asked about it: {names}")

    def _converse(self, lines: Lines) -> None:
        pressed = False
        while True:
            try:
                entry = lines.read()
            except KeyboardInterrupt:
                if pressed or not lines.interactive:
                    raise
                pressed = not lines.abandoned
                note("" if lines.abandoned else "\nCtrl-C again or Ctrl-D leaves")
                continue
            pressed = False
            if entry is None:
                if lines.interactive:
                    note("")
                return
            if not self.take(entry):
                return

    def take(self, entry: Entry) -> bool:
        """Carry out an entry; False means leave. What is wrong with it is said, and the conversation stays."""
        try:
            goes_on = self._take(entry)
            if self._named is not None:
                self._named.write(self.conversation.turns, model=self._model.manifest.name)
            return goes_on
        except LlavaEdgeError as error:
            note(visible(str(error)))
            return True

    def _take(self, entry: Entry) -> bool:
        text = entry.text
        if not text:
            return True
        if entry.literal:
            self.ask(text)
            return True
        name, *rest = text.split(maxsplit=1)
        command = find(name)
        if command is None:
            self._ask_or_drop(text)
        elif rest and not command.argument:
            raise superfluous(name, rest[0])
        elif command.name == "/quit":
            return False
        else:
            self._commands[command.name](rest[0] if rest else "")
        return True

    def _ask_or_drop(self, text: str) -> None:
        """A question, behind the pictures that were dropped in front of it."""
        paths, question = dropped_paths(text)
        if not paths and text.startswith("/") and "\n" not in text:
            raise _no_command(text)
        addresses = web_pictures(question)
        if addresses and question.startswith(addresses[0]):
            raise _on_the_web(addresses[0])
        self.add_images(paths)
        if addresses:
            note(f"nothing is fetched from the web: save {visible(addresses[0][:SHOWN])} as a file, then /image FILE")
        if question:
            self.ask(question)

    def add_images(self, paths: list[str]) -> None:
        """Encode pictures for the next question: all of them or none. Raises ImageError."""
        before, said = len(self.conversation.waiting), list[str]()
        for path in paths:
            try:
                said.append(self._add_image(path))
            except BaseException:
                del self.conversation.waiting[before:]
                raise
        for line in said:
            note(line)

    def _add_image(self, path: str) -> str:
        """Encode a picture, and say of what size it is."""
        if web_pictures(path):
            raise _on_the_web(path)
        image = self._encode(path, self._sampling.detail, self._sampling.picture_tokens)
        self.conversation.waiting.append(image)
        rows, across = image.layout.grid
        name, positions = visible(image.name), image.layout.image_tokens
        seen = f"{rows}x{across} tiles and the overview" if rows else "the overview alone"
        return f"{name}: {seen}, {positions} positions"

    def _encode(self, path: str, detail: Detail, picture_tokens: int | str | None) -> EncodedImage:
        bar = Bar("encoding tiles")
        try:
            with interruptible() as interrupted:
                image = self.conversation.encode(
                    path, detail=detail, picture_tokens=picture_tokens, on_progress=bar, cancelled=interrupted
                )
        except Cancelled:
            raise _PictureStopped(
                expected="a picture", got="Ctrl-C", fix="nothing was added; ask for it again"
            ) from None
        finally:
            bar.close()
        if self._named is not None:
            self._named.note_file(image, path)
        return image

    def ask(self, question: str) -> None:
        """Ask, and write the answer as it comes. Raises what ``Chat.stream`` does; the conversation is as it was."""
        bars = [Bar("encoding tiles"), Bar("reading the prompt")]
        readable = question.encode("utf-8", "replace").decode()  # a byte that is no UTF-8 can't be tokenized
        on_terminal, written = sys.stdout.isatty(), False
        try:
            with interruptible() as interrupted:
                for piece in self.conversation.ask(
                    readable, self._sampling, cancelled=interrupted, on_encode=bars[0], on_prefill=bars[1]
                ):
                    sys.stdout.write(printable(piece) if on_terminal else piece)
                    sys.stdout.flush()
                    written = True
        except ContextError as error:
            raise self._too_long(error) from error
        except (LlavaEdgeError, KeyboardInterrupt):
            if written:
                print(flush=True)  # what is said next begins a line
            raise
        finally:
            for bar in bars:
                bar.close()
        print(flush=True)
        self._say_how_it_ended()

    def _too_long(self, error: ContextError) -> ContextError:
        """The same in the chat's own words: what makes room here."""
        conversation, ways = self.conversation, ["shorten the question"]
        if conversation.waiting and self._sampling.detail == "high":
            ways.append("/set detail low")
        if conversation.waiting and self._sampling.picture_tokens is None:
            ways.append("/set picture-tokens 25% (lossy)")
        if conversation.waiting:
            ways.append("/undo takes back a waiting picture")
        if conversation.answered:
            ways = ["/clear begins a new conversation", *ways]
            if not conversation.waiting:
                ways.append("/undo takes back the last question and its answer")
        return ContextError(expected=error.expected, got=error.got, fix=", or ".join(ways))

    def _say_how_it_ended(self) -> None:
        answer = self.conversation.answer
        if answer is None:
            return
        for warning in answer.warnings:
            if self.conversation.brought_pictures or warning not in self._told:
                note(visible(warning), dim=True)
        self._told = answer.warnings
        for line in stages(answer, self._model) if self._verbose else ():
            note(visible(line), dim=True)
        if answer.finish_reason != "stop":
            note(f"(ended by {answer.finish_reason})")
        if answer.finish_reason == "length" and len(answer.tokens) < self._sampling.max_tokens:
            note("(the context is full: /clear begins a new conversation, /undo takes the last question back)")

    def _image(self, rest: str) -> None:
        if not rest:
            raise OptionError(
                expected="a picture after /image",
                got="none",
                fix="write /image photo.jpg (Tab completes names), or drop the file on the terminal",
            )
        self.add_images(typed_paths(rest))

    def _set(self, rest: str) -> None:
        before = self._sampling
        self._sampling, said = changed(before, split_words(rest))
        now = self._sampling
        layouts = [image.layout for image in self.conversation.waiting]
        tiles_wanted = before.detail == "low" != now.detail and any(one.grid == (0, 0) for one in layouts)
        more_wanted = now.picture_tokens != before.picture_tokens and any(any(one.kept) for one in layouts)
        if tiles_wanted or more_wanted:
            said += " (what a waiting picture has lost does not come back: /undo, and add it again)"
        note(printable(said))

    def _system(self, rest: str) -> None:
        if rest:
            self.conversation.change_system(None if rest in ('""', "''") else rest)
        note(f"system message: {printable(self.conversation.system or 'none')}")

    def _retry(self, _: str) -> None:
        question = self.conversation.last_question().question
        note(f"asking again: {_shortened(question)}")
        self.ask(question)

    def _undo(self, _: str) -> None:
        undone = self.conversation.undo()
        if not isinstance(undone, Asked):
            note(f"took back the picture {visible(undone.name)}")
            return
        pictures = ", ".join(visible(image.name) for image in undone.images)
        waits = f"; {pictures} waits for the next question (/undo takes that back too)" if pictures else ""
        note(f"took back: {_shortened(undone.question)}{waits}")

    def _save(self, rest: str) -> None:
        words = file_words(rest)
        names = [word for word in words if word not in ("--force", "-f")]
        force = len(names) < len(words)
        if len(names) != 1:
            raise OptionError(
                expected="one file after /save",
                got=f"{len(names)} words" if names else "none",
                fix="write /save talk.md; a name with spaces in quotes",
            )
        path = Path(as_path(names[0]))
        transcript.save(path, self.conversation.turns, model=self._model.manifest.name, overwrite=force)
        note(f"saved as {visible(str(path))}")

    def _clear(self, _: str) -> None:
        self.conversation.clear()
        note("conversation cleared")

    def _stats(self, _: str) -> None:
        answer = self.conversation.answer
        note(self._model.placement)
        note(statistics(answer) if answer else "no answer yet")
        note(self._model.provider)


def _no_command(text: str) -> OptionError:
    """What is wrong with a line that begins with a slash and is neither a command nor a file."""
    word = file_word(text).text
    if "/" in word[1:] or PICTURE.search(word):
        return OptionError(
            expected="a file, or a command", got=f"no file {word[:200]}", fix="check the path; /help lists the commands"
        )
    return unknown(word)


def _on_the_web(address: str) -> OptionError:
    return OptionError(
        expected="a picture of this machine", got=repr(address[:SHOWN]), fix="save it as a file, then /image FILE"
    )


def _shortened(text: str) -> str:
    line = visible(" ".join(text.split()))
    return line if len(line) <= SHOWN else line[: SHOWN - 1] + "…"
