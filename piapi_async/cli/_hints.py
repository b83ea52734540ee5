"""What a person meant who typed a prompt as Discord wants it."""

from __future__ import annotations

import re

import click

# Midjourney's own parameters (docs.midjourney.com, "Parameter List"), which belong into the prompt.
_PARAMETER = re.compile(
    r"(?:--|[\u2013\u2014]|-)(?:ar|aspect|chaos|c|cref|cw|draft|exp|fast|iw|motion|niji|no|oref|ow|p|profile|q|quality"
    r"|raw|relax|repeat|r|seed|sref|stop|stylize|style|s|sw|tile|turbo|v|version|video|weird|w)"
)
_DASHES = ("--", "\u2013", "\u2014")


class HintingCommand(click.Command):
    """A command with a prompt, which says where Midjourney's parameters, and several words, belong."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the words; add a hint to the error for those that look like a part of the prompt."""
        given = list(args)
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            hint = self._hint(ctx, given, error)
            if not hint:
                raise
            text = error.format_message().rstrip(".")
            raise click.UsageError(f"{text}. {hint}", ctx) from None

    def _hint(self, ctx: click.Context, given: list[str], error: click.UsageError) -> str:
        if not any(parameter.name == "prompt" for parameter in self.params):
            return ""
        own = {option for parameter in self.params for option in (*parameter.opts, *parameter.secondary_opts)}
        foreign = [
            number
            for number, word in enumerate(given)
            if word.startswith((*_DASHES, "-")) and word.partition("=")[0] not in own
        ]
        how = f"{ctx.command_path} -- " if self._takes_prompt_first() else f"{ctx.command_path} ... --prompt="
        for number in foreign:
            word = given[number]
            if word.startswith("--") and " " in word:
                return f'A prompt that begins with a dash is given as {how}"{word}".'
            if said := _parameter(given[number:]):
                instead = "; or use --aspect-ratio" if said.startswith("--ar") and "--aspect-ratio" in own else ""
                return f'Midjourney\'s parameters belong into the prompt, as in "a cat {said}"{instead}.'
        if "unexpected extra argument" in error.format_message() and self._takes_prompt_first():
            return f'Put the prompt in quotes: {ctx.command_path} "a cute cat".'
        return ""

    def _takes_prompt_first(self) -> bool:
        return any(isinstance(parameter, click.Argument) and parameter.name == "prompt" for parameter in self.params)


def _parameter(words: list[str]) -> str:
    """Return the parameter of Midjourney's that words begin with, and its value, "" for none."""
    name, _, value = " ".join(words[:2]).replace("=", " ", 1).partition(" ")
    if not _PARAMETER.fullmatch(name):
        return ""
    value = "" if value.startswith("-") else value.split(" ")[0]
    bare = name.lstrip("-\u2013\u2014")
    return f"--{bare} {value}".strip()
