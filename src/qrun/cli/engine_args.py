"""Arguments for the engine, after `--`: they reach the command unchanged, as `engine_args`."""

import click

__all__ = ["EngineArgsCommand"]


class EngineArgsCommand(click.Command):
    """A command whose line may end in `-- ENGINE_ARGS`.

    click itself would drop the `--` and so could not tell an argument too many from one for the engine.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Set aside what follows the first `--`."""
        at = args.index("--") if "--" in args else len(args)
        rest = super().parse_args(ctx, args[:at])
        ctx.params["engine_args"] = tuple(args[at + 1 :])
        return rest

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """The usage line tells of them."""
        return [*super().collect_usage_pieces(ctx), "[-- ENGINE_ARGS...]"]
