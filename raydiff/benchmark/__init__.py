"""The measuring stick: methods over data sets and seeds under one protocol, and the bulk path's speed."""
