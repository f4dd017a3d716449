//! Bodies of the fuzz targets, here so that plain tests run them too.
