"""Networks from an image to a map of classes: the parts and the families; importing one registers its rows."""

import pkgutil
from importlib import import_module

for _module in pkgutil.iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
