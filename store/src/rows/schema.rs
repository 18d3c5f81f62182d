//! The tables of the product.
