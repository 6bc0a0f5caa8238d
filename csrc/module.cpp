// Importing fastcnn._C loads this library, and loading it registers the kernels; the module itself holds what
// fastcnn.report() shows, and fastcnn.empty_cache().

#include <Python.h>

#include "common/isa.h"
#include "common/memory.h"

static PyObject* empty_cache(PyObject*, PyObject*) {
  fastcnn::empty_cache();
  Py_RETURN_NONE;
}

PyMODINIT_FUNC PyInit__C(void) {
  static PyMethodDef methods[] = {{"empty_cache", empty_cache, METH_NOARGS, nullptr}, {nullptr, nullptr, 0, nullptr}};
  static PyModuleDef definition = {
      PyModuleDef_HEAD_INIT, "_C", nullptr, -1, methods, nullptr, nullptr, nullptr, nullptr};
  PyObject* module = PyModule_Create(&definition);
  if (module != nullptr) PyModule_AddStringConstant(module, "isa", fastcnn::isa_name());
  return module;
}
