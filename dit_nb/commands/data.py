"""Data of the commands: the data set of images or latents that the options name."""

from dit_nb.commands.options import Train
from dit_nb.distributed import _process_state
from dit_nb.errors import UserError
from dit_nb.image_files import open_images

__all__ = []


def _open_data(options: Train):
    "Open the data set of images or latents that the options name."
    if options.latents is not None:
        from dit_nb.latent_cache import open_latents

        return open_latents(options.latents)
    if options.data != "digits" and options.image_size is None:
        raise UserError("image_size is missing: give the side of the square to crop images to, in pixels.")
    data = open_images(options.data, options.image_size, options.channels, options.skip_bad)
    skipped = getattr(data, "skipped", ())
    if skipped and _process_state().is_main_process:
        print(f"skipped {len(skipped)} unreadable images: {', '.join(map(str, skipped[:5]))}")
    return data


def _describe_data(data) -> str:
    "What the data hold, as lines of text: where from, images, size, channels, classes, what was left out."
    shape = "x".join(map(str, data[0][0].shape[-3:]))
    return f"data: {len(data):,} images of {shape}"
