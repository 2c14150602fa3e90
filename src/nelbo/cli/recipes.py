"""The verb `nelbo recipes`."""

from dataclasses import dataclass

from nelbo.cli.verb import Answer, Importing


@dataclass
class Recipes(Importing):
    """List every recipe, with its promise."""

    usage = "recipes"
    summary = "every recipe, with its promise"
    order = 10

    def run(self) -> Answer:
        from nelbo.cli import console
        from nelbo.core.catalogue import docline, entries
        from nelbo.training.recipe import GROUPS, group_of

        rows = {
            name: {"group": group_of(name), "what": docline(entry)}
            for name, entry in entries("recipe").items()
        }
        groups = [*GROUPS, *sorted({row["group"] for row in rows.values()} - {*GROUPS})]
        rows = {name: row for group in groups for name, row in rows.items() if row["group"] == group}

        def show() -> None:
            width = max(map(len, rows))  # the same in every table
            for group in groups:
                lines = [
                    (name.ljust(width), row["what"]) for name, row in rows.items() if row["group"] == group
                ]
                if lines:
                    console.show(["", ""], lines, f"{group}")
                    console.write("")
            print("what, how good (nats an image), how long on two cores")
            print("nelbo train RECIPE trains one; add --dry-run to see its configuration")

        return Answer(rows, show)
