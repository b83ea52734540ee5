"""Hints for people who type a prompt as Discord wants it."""

from __future__ import annotations

import re

import click

# Midjourney's own parameters (docs.midjourney.com, "Parameter List"), which belong in the prompt.
_PARAMETER = re.compile(
    r"(?:--|[\u2013\u2014]|-)"
    r"(?:ar|aspect|chaos|c|cref|cw|draft|exp|fast|iw|motion|niji|no|oref|ow|p|profile|q|quality"
    r"|raw|relax|repeat|r|seed|sref|stop|stylize|style|s|sw|tile|turbo|v|version|video|weird|w)"
)
_DASHES = ("--", "\u2013", "\u2014")


class HintingCommand(click.Command):
    """A command whose usage errors say where Midjourney's parameters belong, and prompts of several words."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the words; add a hint to the error if some look like a part of the prompt."""
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
        for number, word in enumerate(given):
            is_foreign = word.startswith((*_DASHES, "-")) and word.partition("=")[0] not in own
            if is_foreign:
                hint = self._hint_for(ctx, given[number:], own)
                if hint:
                    return hint

        if "unexpected extra argument" in error.format_message() and self._takes_prompt_first():
            return f'Put the prompt in quotes: {ctx.command_path} "a cute cat".'
        return ""

    def _hint_for(self, ctx: click.Context, words: list[str], own: set[str]) -> str:
        """Return the hint for words of which the first is an unknown option, "" for none."""
        first = words[0]
        if first.startswith("--") and " " in first:
            how = f"{ctx.command_path} ... --prompt="
            if self._takes_prompt_first():
                how = f"{ctx.command_path} -- "
            return f'A prompt that begins with a dash is given as {how}"{first}".'

        parameter = _parameter(words)
        if not parameter:
            return ""
        hint = f'Midjourney\'s parameters belong in the prompt, as in "a cat {parameter}"'
        if parameter.startswith("--ar") and "--aspect-ratio" in own:
            hint += "; or use --aspect-ratio"
        return f"{hint}."

    def _takes_prompt_first(self) -> bool:
        arguments = [parameter.name for parameter in self.params if isinstance(parameter, click.Argument)]
        return "prompt" in arguments


def _parameter(words: list[str]) -> str:
    """Return the Midjourney parameter that words begin with, and its value, "" for none."""
    name, _, value = " ".join(words[:2]).replace("=", " ", 1).partition(" ")
    if not _PARAMETER.fullmatch(name):
        return ""

    value = value.split(" ")[0]
    if value.startswith("-"):
        value = ""
    bare = name.lstrip("-\u2013\u2014")
    return f"--{bare} {value}".strip()
