"""What an edit is: its names, what it needs, what it replaces, and a function that builds it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from sinkablate.errors import UserError, first_line
from sinkablate.intervene.changes import Change
from sinkablate.intervene.sites import HeadSite, PathwaySite, require_shape

Need = Literal["donors", "registers", "pathway"]
Replaced = Literal["value", "attention", "global state"]


@dataclass(frozen=True)
class Edit:
    """One kind of edit.

    `build` gets a `HeadSite`, or a `PathwaySite` if a global state is replaced. It returns None where the edit cannot
    be made, for example without a donor; such an image and head get no row.
    """

    name: str
    """Key on the command line and in the tables."""
    title: str
    """What is replaced by what, in a few plain words, for figures and the terminal."""
    method: str
    """What the literature calls it."""
    build: Callable[[Any], Change | None]
    replaces: Replaced = "value"
    needs: tuple[Need, ...] = ()
    """What the images or the model must have: other images to take values from, registers, a global pathway."""
    is_control: bool = False
    """True if the edit is a control, with which edits of the sink are compared."""
    group: str = ""
    """Name under which the command line selects several edits at once; empty if the edit has no group."""

    @property
    def of_pathway(self) -> bool:
        """True if the edit replaces the state of a global pathway."""
        return self.replaces == "global state"

    @property
    def label(self) -> str:
        """Title and method on two lines, as in `sink value: zero` above `(zero ablation)`."""
        return f"{self.title}\n({self.method})"

    def change(self, site: HeadSite | PathwaySite) -> Change | None:
        """Return what the edit changes at a site; None where it cannot be made.

        Raises:
            UserError: `build` fails, or returns something other than a change of the site's output.
        """
        if "registers" in self.needs and isinstance(site, HeadSite) and site.register is None:
            return None
        try:
            change = self.build(site)
        except (RuntimeError, TypeError, AttributeError, ValueError, IndexError) as error:
            raise UserError(f"edit {self.name}: {first_line(error)}") from error
        if change is None:
            return None
        if not isinstance(change, Change):
            raise UserError(
                f"edit {self.name}: build returned a {type(change).__name__}; return the result of a method of "
                "the site, such as site.replace_value"
            )
        require_shape(change.change, site.output_shape, f"edit {self.name}: the change")
        return replace(change, edit=self.name)
