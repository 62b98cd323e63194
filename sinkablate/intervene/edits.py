"""The table of edits. An edit is a value: its names, what it needs, what it replaces, and a function that builds it.

`register_edit` adds one from anywhere; it then appears in the rows, tables, figures and the terminal of `intervene`.
"""

from collections.abc import Collection, Iterable

from sinkablate.errors import UserError
from sinkablate.files.suggestions import did_you_mean_or_list
from sinkablate.intervene.changes import Change
from sinkablate.intervene.edit import Edit
from sinkablate.intervene.sites import HeadSite

_EDITS: dict[str, Edit] = {}


def register_edit(edit: Edit) -> Edit:
    """Add an edit to the table.

    Raises:
        UserError: Another edit or group has this name.
    """
    if edit.name in _EDITS or edit.name in option_names() or edit.group in _EDITS:
        raise UserError(f"edit {edit.name}: an edit or group with this name already exists; choose another name")
    _EDITS[edit.name] = edit
    return edit


def unregister_edit(name: str) -> None:
    """Remove an edit from the table."""
    _EDITS.pop(name, None)


def all_edits() -> list[Edit]:
    """Return every edit, in the order of tables and figures."""
    return list(_EDITS.values())


def option_names() -> list[str]:
    """Return the names that `edits` accepts on the command line: a group stands for its edits."""
    return list(dict.fromkeys(edit.group or edit.name for edit in all_edits()))


def edit_named(name: str) -> Edit:
    """Return an edit by its name.

    Raises:
        UserError: It is not registered, for example because another program registered it and made these results.
    """
    if name not in _EDITS:
        raise UserError(f"edit={name}: not registered in this process; import the module that registers it first")
    return _EDITS[name]


def position_of(name: str) -> int:
    """Return the position of an edit in the table, by which rows are sorted."""
    return list(_EDITS).index(name)


def selected(names: Collection[str]) -> list[Edit]:
    """Return the edits that some names of edits and groups stand for, in the order of the table."""
    return [edit for edit in all_edits() if edit.name in names or edit.group in names]


def parse_edits(text: str | Iterable[str]) -> list[str]:
    """Parse names of edits and groups, separated by commas or as a sequence, into the order of the table.

    Raises:
        UserError: A name is unknown.
    """
    known = option_names()
    if text == "all":
        return known
    words = [word.strip() for word in (text.split(",") if isinstance(text, str) else text)]
    if not words:
        raise UserError("edits: is empty; name at least one, or leave it out for all")
    every = list(dict.fromkeys(name for edit in all_edits() for name in (edit.group or edit.name, edit.name)))
    for word in words:
        if word not in every:
            raise UserError(f"edits={word}: no such edit{did_you_mean_or_list(word, every)}")
    return [name for name in every if name in words]


def judged_by(names: Collection[str]) -> str | None:
    """Return the edit by which labels are judged: the mean value if it was made; zero ablation overstates effects."""
    return next((name for name in (MEAN.name, ZERO.name, *names) if name in names), None)


def _zero_non_sink_head(site: HeadSite) -> Change | None:
    other = site.non_sink_head
    if other is None:
        return None
    return site.replace_value(site.zeros, site.plan.sink(site.image, (site.place[0], other)), other)


ZERO = Edit("zero_value", "sink value: zero", "zero ablation", lambda site: site.replace_value(site.zeros))
MEAN = Edit(
    "mean_value",
    "sink value: mean of images",
    "mean ablation",
    lambda site: site.replace_value(site.mean_value(site.sink_values)),
    needs=("donors",),
)
DONOR = Edit(
    "donor_value",
    "sink value: another image's",
    "resample ablation, activation patching",
    lambda site: site.replace_value(site.donor_value(site.sink_values)),
    needs=("donors",),
)
ROTATED = Edit(
    "rotated_value",
    "sink value: random direction",
    "control for activation patching",
    lambda site: site.replace_value(site.direction),
    is_control=True,
)
_TABLE = (
    ZERO,
    MEAN,
    DONOR,
    ROTATED,
    Edit(
        "ordinary_value",
        "sink value: another token's",
        "resample ablation from another token",
        lambda site: site.replace_value(site.donor_value(site.ordinary_values)),
        needs=("donors",),
    ),
    Edit(
        "redirect",
        "attention to sink: removed",
        "attention knockout",
        lambda site: site.remove_sink(),
        replaces="attention",
    ),
    Edit(
        "random_value",
        "random token's value: zero",
        "control for zero ablation",
        lambda site: None if site.random_token is None else site.replace_value(site.zeros, site.random_token),
        is_control=True,
    ),
    Edit(
        "random_head", "non-sink head's value: zero", "control for zero ablation", _zero_non_sink_head, is_control=True
    ),
    Edit(
        "register_zero",
        "register: zero",
        "zero ablation of a register",
        lambda site: site.replace_register(site.zeros),
        needs=("registers",),
        group="register",
    ),
    Edit(
        "register_mean",
        "register: mean of images",
        "mean ablation of a register",
        lambda site: site.replace_register(site.mean_value(site.register_values)),
        needs=("registers", "donors"),
        group="register",
    ),
    Edit(
        "register_donor",
        "register: another image's",
        "resample ablation of a register",
        lambda site: site.replace_register(site.donor_value(site.register_values)),
        needs=("registers", "donors"),
        group="register",
    ),
    Edit(
        "pathway_zero",
        "global state: zero",
        "zero ablation of the global pathway",
        lambda site: site.replace_state(site.zeros),
        replaces="global state",
        needs=("pathway",),
        group="pathway",
    ),
    Edit(
        "pathway_mean",
        "global state: mean of images",
        "mean ablation of the global pathway",
        lambda site: site.replace_state(site.mean_state),
        replaces="global state",
        needs=("pathway", "donors"),
        group="pathway",
    ),
    Edit(
        "pathway_donor",
        "global state: another image's",
        "resample ablation of the global pathway",
        lambda site: site.replace_state(site.donor_state),
        replaces="global state",
        needs=("pathway", "donors"),
        group="pathway",
    ),
)
for _edit in _TABLE:
    register_edit(_edit)
