// Importing fastcnn._C loads this library, and loading it registers the kernels; the module itself holds only what
// fastcnn.report() shows.

#include <Python.h>

#include "common/isa.h"

PyMODINIT_FUNC PyInit__C(void) {
  static PyModuleDef definition = {
      PyModuleDef_HEAD_INIT, "_C", nullptr, -1, nullptr, nullptr, nullptr, nullptr, nullptr};
  PyObject* module = PyModule_Create(&definition);
  if (module != nullptr) PyModule_AddStringConstant(module, "isa", fastcnn::isa_name());
  return module;
}
