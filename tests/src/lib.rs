//! Nothing is here: this package exists for its one integration binary, `all/main.rs`, which runs
//! whole clusters over real sockets, certificates and databases.
