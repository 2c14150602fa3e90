"""The verb `nelbo env`."""

from dataclasses import dataclass

from nelbo.cli.verb import Answer, Verb


@dataclass
class Env(Verb):
    """Show versions and hardware, as every run records them, and how steps are run here."""

    usage = "env"
    summary = "versions and hardware"
    order = 160

    def run(self) -> Answer:
        from nelbo import engine
        from nelbo.cli import console

        device = engine.pick_device()
        table = engine.describe(device) | {
            "auto_precision": engine.pick_precision("auto", device),
            "compiles": engine.why_not(device) or "yes",  # the reason is the answer
        }
        return Answer(table, lambda: console.show_fields(table))
