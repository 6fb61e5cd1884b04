package config

// TablesSetting is the name of the setting that says where tables are kept: what several Nodes share is a database beside them.
const TablesSetting = "tables"
