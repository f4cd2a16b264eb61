"""Heart disease in four hospitals: real patients, a small model, a whole federation."""
