"""The verb `nelbo sample`."""

import math
from dataclasses import dataclass, field
from typing import Annotated

from tyro.conf import UseAppendAction, arg

from nelbo.cli import flags
from nelbo.cli.flags import plain
from nelbo.cli.on_run import OnView, only_files
from nelbo.cli.verb import Answer
from nelbo.errors import ConfigError, did_you_mean


@dataclass
class Sample(OnView):
    """Draw images from the prior or a sampler fitted to the training images; with --like, draws around given images.

    Fields of the sampler are flags: --sampler gaussian-mixture --sampler.components 20 (see nelbo list sampler).
    """

    usage = "sample RUN"
    summary = "images from the prior or a fitted sampler, or like given images"
    order = 80

    n: Annotated[int, arg(aliases=("-n",), help="images (for each one of --like)", metavar="INT")] = 16
    like: Annotated[
        tuple[str, ...],
        UseAppendAction,
        plain(
            "an image to stay close to: 12 (position in the split), FILE.png, example:CLASS (the first of that "
            "class), or all (an example of every class); repeat for more",
            metavar="A",
        ),
    ] = ()
    noise: Annotated[
        float | None,
        arg(
            help="with --like: standard deviation of noise added to the posterior mean, in place of draws from the "
            "posterior",
            metavar="FLOAT",
        ),
    ] = None
    temperature: Annotated[float, arg(help="scale of draws from the prior", metavar="FLOAT")] = 1.0
    sampler: Annotated[
        str, arg(help="source of the latents; chosen: the best one of nelbo samplers RUN", metavar="NAME")
    ] = "prior"
    overrides: flags.Overrides = field(default_factory=dict)

    @classmethod
    def settings(cls, unknown: list[str]) -> flags.Settings:
        """Take flags with a dot as fields of the sampler."""
        return flags.dotted(unknown)

    def run(self) -> Answer:
        from nelbo.core import config
        from nelbo.evaluation import samplers
        from nelbo.pictures import export

        settings = self._sampler_settings()
        samplers.check_name(self.sampler)  # before the run is opened
        if self.like:
            view = self.view(images=self.data is not None or not only_files(*self.like))
            out = self.folder(view)
            export.sample_like(view, out, self.n, list(self.like), self.noise)
            return self.files_answer(view, out.files)
        view = self.view(images=False)  # the prior needs none, and draws where they are gone
        spec = samplers.specified(self.sampler, settings, view.run, view.model)
        if spec.fewest(view.model.latent_dim) > 0:
            view = self.view()
            if not view.is_own:
                raise ConfigError(
                    f"--sampler {spec.name} is fitted to the training images of {view.run.name}, which "
                    f"--data {self.data} are not; give their place, where they have moved"
                )
        elif self.data is not None:
            raise ConfigError(
                f"--data {self.data}: draws from the prior look at no images; leave it out, or add --like 0"
            )
        out = self.folder(view)
        export.sample(view, out, self.n, sampler=spec)
        return self.files_answer(view, out.files, sampler=config.to_dict(spec))

    def _sampler_settings(self) -> dict[str, object]:
        """Return the sampler's fields among the flags; raise ConfigError for flags that exclude each other."""
        values: dict[str, object] = {}
        for key, value in self.overrides.items():
            head, _, field_of_sampler = key.partition(".")
            if head != "sampler":
                hint = did_you_mean(head, ["sampler"])
                raise ConfigError(f"no flag is called --{key.replace('_', '-')}; {hint}")
            values[field_of_sampler] = value
        if self.noise is not None and not self.like:
            raise ConfigError("--noise is added to the latents of images: name some, as in --like all")
        if self.noise is not None and not 0 < self.noise < math.inf:
            raise ConfigError(
                f"--noise {self.noise:g}: expected a standard deviation above 0, as in --noise 1"
            )
        if self.like and (values or self.sampler != "prior"):
            raise ConfigError(
                "--sampler and --like do not go together: draws around an image are its posterior's"
            )
        if self.temperature != 1.0 and self.sampler != "prior":
            raise ConfigError(
                f"--temperature scales draws from the prior, and --sampler is {self.sampler}; leave one of them out"
            )
        # The flag is short for a field of the prior; --sampler.temperature itself wins.
        return values if self.temperature == 1.0 else {"temperature": self.temperature} | values
