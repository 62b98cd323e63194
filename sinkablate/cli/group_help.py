"""Show the keys of one group for `--help GROUP`."""

from argparse import SUPPRESS
from collections.abc import Sequence

from jsonargparse import ArgumentParser

from sinkablate.errors import UserError
from sinkablate.files.suggestions import did_you_mean

ALL = "all"


def help_group(argv: Sequence[str]) -> str | None:
    """Return the group after `--help`, `all` if there is none, or None for a command line without `--help`."""
    for position, word in enumerate(argv):
        name, equals, value = word.partition("=")
        if name in ("-h", "--help"):
            following = [*argv[position + 1 :], "--"][0]
            return value if equals else ALL if following.startswith("-") else following.removeprefix("--")
    return None


def group_help(parser: ArgumentParser, group: str) -> str:
    """Return the help of one key, or of all keys in a group and its subgroups. The parser cannot be used afterward.

    Raises:
        UserError: There is no such group or key.
    """
    if group == ALL:
        return parser.format_help()
    names = {action.dest for action in parser._actions}
    if not any(name == group or name.startswith(f"{group}.") for name in names):
        raise UserError(
            f"--help {group}: no such group of keys" + (did_you_mean(group, names) or "; --help lists the groups")
        )
    sections = parser._action_groups
    for section in sections:
        section._group_actions = [
            action for action in section._group_actions if action.dest == group or action.dest.startswith(f"{group}.")
        ]
    parser._action_groups = [section for section in sections if section._group_actions]
    parser.usage, parser.description = SUPPRESS, None
    return parser.format_help().strip()
