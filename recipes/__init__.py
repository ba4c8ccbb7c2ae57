"""How planned networks are trained, saved and loaded with other libraries; each module is tested with the real one."""
