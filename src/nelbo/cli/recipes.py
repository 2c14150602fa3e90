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

        rows = {name: docline(entry) for name, entry in entries("recipe").items()}

        def show() -> None:
            head = ["recipe", "what, how good (nats an image), how long on two cores"]
            console.show(head, list(rows.items()))
            print("\nnelbo train RECIPE trains one; add --dry-run to see its configuration")

        return Answer(rows, show)
