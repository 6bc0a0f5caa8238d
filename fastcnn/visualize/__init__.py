"""What a network sees: heat maps of a class, first kernels, strongest responses of a channel, reconstructions.

Functions take a :class:`~fastcnn.models.ConvNet` in eval mode and its preprocessed input; a layer is the name of a
feature (``net.feature_info``) or the path of a module. Pictures are uint8 (3, H, W), as
:func:`fastcnn.data.write_image` takes them.
"""

from fastcnn.visualize.deconv import deconvnet, unpool
from fastcnn.visualize.fields import ReceptiveField, receptive_field
from fastcnn.visualize.gradients import grad_cam, guided_backprop
from fastcnn.visualize.pictures import colour_map, first_layer_kernels, grid, overlay, signed_picture
from fastcnn.visualize.responses import Response, patches, strongest_responses

__all__ = [
    "ReceptiveField",
    "Response",
    "colour_map",
    "deconvnet",
    "first_layer_kernels",
    "grad_cam",
    "grid",
    "guided_backprop",
    "overlay",
    "patches",
    "receptive_field",
    "signed_picture",
    "strongest_responses",
    "unpool",
]
