"""`--help GROUP`: the keys of one group."""

from argparse import SUPPRESS
from collections.abc import Sequence

from jsonargparse import ArgumentParser

from sinkablate.errors import UserError
from sinkablate.files.suggestions import did_you_mean

ALL = "all"


def help_group(argv: Sequence[str]) -> str | None:
    """The group whose help a command line asks for, `all` where it names none; None when it asks for no help."""
    for position, word in enumerate(argv):
        name, equals, value = word.partition("=")
        if name in ("-h", "--help"):
            following = [*argv[position + 1 :], "--"][0]
            return value if equals else ALL if following.startswith("-") else following.removeprefix("--")
    return None


def group_help(parser: ArgumentParser, group: str) -> str:
    """The help of the keys that are in a group or below it, or of one key; the parser is good for nothing else then.

    Raises:
        UserError: There is no such group or key.
    """
    if group == ALL:
        return parser.format_help()
    names = {action.dest for action in parser._actions}
    if not any(name == group or name.startswith(f"{group}.") for name in names):
        raise UserError(
            f"--help {group}: there is no such group of keys"
            + (did_you_mean(group, names) or "; --help lists the groups")
        )
    sections = parser._action_groups
    for section in sections:
        section._group_actions = [
            action for action in section._group_actions if action.dest == group or action.dest.startswith(f"{group}.")
        ]
    parser._action_groups = [section for section in sections if section._group_actions]
    parser.usage, parser.description = SUPPRESS, None
    return parser.format_help().strip()
