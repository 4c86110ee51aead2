-- A store as revision 0012 left it (sqlite3.Connection.iterdump). Never edit: users have such files
BEGIN TRANSACTION;
CREATE TABLE stockpot_alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT stockpot_alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "stockpot_alembic_version" VALUES('0012');
CREATE TABLE stockpot_bounds (
	recipe VARCHAR(71) NOT NULL, 
	protocol VARCHAR(71) NOT NULL, 
	mixed BOOLEAN NOT NULL, 
	upper DOUBLE NOT NULL, 
	updated_at DOUBLE NOT NULL, 
	CONSTRAINT pk_stockpot_bounds PRIMARY KEY (recipe, protocol, mixed), 
	CONSTRAINT fk_stockpot_bounds_recipe FOREIGN KEY(recipe) REFERENCES stockpot_recipes (digest), 
	CONSTRAINT fk_stockpot_bounds_protocol FOREIGN KEY(protocol) REFERENCES stockpot_protocols (digest)
);
INSERT INTO "stockpot_bounds" VALUES('sha256:ddaea531995e17cded1f6c4e7c693c5a2cbd4184867781e4fc261eef73865af2','sha256:048fb31e8b40241bef5bdd4040fac1979badc1d46ef7e8c48742ac7e7e9259d4',1,0.5,1.79580120109236478806e+09);
INSERT INTO "stockpot_bounds" VALUES('sha256:ddaea531995e17cded1f6c4e7c693c5a2cbd4184867781e4fc261eef73865af2','sha256:048fb31e8b40241bef5bdd4040fac1979badc1d46ef7e8c48742ac7e7e9259d4',0,0.75,1.79580120110191297526e+09);
CREATE TABLE stockpot_candidates (
	id INTEGER NOT NULL, 
	job VARCHAR(71), 
	run_id VARCHAR NOT NULL, 
	path VARCHAR NOT NULL, 
	model_id VARCHAR, 
	checkpoint VARCHAR(71) NOT NULL, sweep VARCHAR, 
	CONSTRAINT pk_stockpot_candidates PRIMARY KEY (id), 
	CONSTRAINT uq_stockpot_candidates_job_run_id_path UNIQUE (job, run_id, path), 
	CONSTRAINT fk_stockpot_candidates_job FOREIGN KEY(job) REFERENCES stockpot_jobs (name)
);
INSERT INTO "stockpot_candidates" VALUES(1,NULL,'0123456789abcdef0123456789abcdef','checkpoints/model.safetensors',NULL,'sha256:ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb',NULL);
INSERT INTO "stockpot_candidates" VALUES(2,'sha256:3ec22e66754979d98f65b28e6a69d136387476fb894909f2b4855170b05d77b1','one','model.safetensors',NULL,'sha256:ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb',NULL);
INSERT INTO "stockpot_candidates" VALUES(3,'sha256:3ec22e66754979d98f65b28e6a69d136387476fb894909f2b4855170b05d77b1','two','model.safetensors',NULL,'sha256:3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d',NULL);
CREATE TABLE stockpot_evaluations (
	recipe VARCHAR(71) NOT NULL, 
	protocol VARCHAR(71) NOT NULL, 
	value DOUBLE, 
	n INTEGER NOT NULL, 
	examples BLOB NOT NULL, 
	created_at DOUBLE NOT NULL, metric BLOB, gaps BLOB, 
	CONSTRAINT pk_stockpot_evaluations PRIMARY KEY (recipe, protocol), 
	CONSTRAINT fk_stockpot_evaluations_recipe FOREIGN KEY(recipe) REFERENCES stockpot_recipes (digest), 
	CONSTRAINT fk_stockpot_evaluations_protocol FOREIGN KEY(protocol) REFERENCES stockpot_protocols (digest)
);
INSERT INTO "stockpot_evaluations" VALUES('sha256:680a367f05b2149ace8cccbbdae42b87133a3418e45fee4856da51eed4d41a53','sha256:4f4c6b36183113aac8736e439cffb8d0e1158b8b019b8d3b3d86ef990fcbd8b5',NULL,3,X'789C636000811FF50C10D0306B2608ECB4070033E90687',1.79580120106979680065e+09,NULL,NULL);
INSERT INTO "stockpot_evaluations" VALUES('sha256:ddaea531995e17cded1f6c4e7c693c5a2cbd4184867781e4fc261eef73865af2','sha256:4f4c6b36183113aac8736e439cffb8d0e1158b8b019b8d3b3d86ef990fcbd8b5',0.25,1,X'789C6360008107F60002070120',1.79580120108705163003e+09,X'789C636000810BF6608AE1473D8466680000218E0307',NULL);
INSERT INTO "stockpot_evaluations" VALUES('sha256:8364ccdf586ce03dabc390b666536c52026c791f603fc73c998c8d171aebb73e','sha256:048fb31e8b40241bef5bdd4040fac1979badc1d46ef7e8c48742ac7e7e9259d4',6.66666666666666629659e-01,3,X'789C636000810FF60C28E0833D001746025F',1.79586327671559548382e+09,NULL,X'789C636060B0676068A8676060B0030007FC017D');
INSERT INTO "stockpot_evaluations" VALUES('sha256:7da2a86a891ada6df7bb23dcf88361671c3e6462e4103827d5e72860bb60f7ab','sha256:3b68567d56e4d584d5ef6fd684d71025ddd96cc6b072a009e87d949bb9b9ffa3',3.00000000000000044408e-01,3,X'789C636000810FF60C28E0813D001726024F',1.79586327693430471423e+09,X'789C33310681CBF6B36682C04E7B0630F8510F006941084C',X'789C636060B0676068B0636038500F000878023D');
CREATE TABLE stockpot_ingested (
	uri VARCHAR NOT NULL, 
	document JSON NOT NULL, 
	CONSTRAINT pk_stockpot_ingested PRIMARY KEY (uri)
);
INSERT INTO "stockpot_ingested" VALUES('file:///a','{"uri": "file:///a", "size": 4, "sha256": "0000000000000000000000000000000000000000000000000000000000000000", "checkpoint": {"digest": "sha256:49f9160320a550b553674d8f187473b19e1860dc993baa6b556069a4c195c652", "size": 4, "tensors": [{"name": "weight", "dtype": "F32", "shape": [1]}], "exact": "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}, "fault": null, "detail": ""}');
INSERT INTO "stockpot_ingested" VALUES('file:///srv/artifacts/1/0123456789abcdef0123456789abcdef/artifacts/checkpoints/model.safetensors','{"uri": "file:///srv/artifacts/1/0123456789abcdef0123456789abcdef/artifacts/checkpoints/model.safetensors", "size": 4, "sha256": "0000000000000000000000000000000000000000000000000000000000000000", "checkpoint": {"digest": "sha256:ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb", "size": 4, "tensors": [{"name": "weight", "dtype": "F32", "shape": [1]}], "exact": "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}, "fault": null, "detail": ""}');
INSERT INTO "stockpot_ingested" VALUES('file:///srv/artifacts/1/fedcba9876543210fedcba9876543210/artifacts/bad.safetensors','{"uri": "file:///srv/artifacts/1/fedcba9876543210fedcba9876543210/artifacts/bad.safetensors", "size": null, "sha256": "1111111111111111111111111111111111111111111111111111111111111111", "checkpoint": null, "fault": "non-finite weights", "detail": "NaN"}');
CREATE TABLE stockpot_ingredients (
	recipe VARCHAR(71) NOT NULL, 
	position INTEGER NOT NULL, 
	checkpoint VARCHAR(71) NOT NULL, 
	coefficient DOUBLE NOT NULL, 
	CONSTRAINT pk_stockpot_ingredients PRIMARY KEY (recipe, position), 
	CONSTRAINT fk_stockpot_ingredients_recipe FOREIGN KEY(recipe) REFERENCES stockpot_recipes (digest)
);
INSERT INTO "stockpot_ingredients" VALUES('sha256:680a367f05b2149ace8cccbbdae42b87133a3418e45fee4856da51eed4d41a53',0,'sha256:ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb',0.5);
INSERT INTO "stockpot_ingredients" VALUES('sha256:680a367f05b2149ace8cccbbdae42b87133a3418e45fee4856da51eed4d41a53',1,'sha256:3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d',0.5);
INSERT INTO "stockpot_ingredients" VALUES('sha256:ddaea531995e17cded1f6c4e7c693c5a2cbd4184867781e4fc261eef73865af2',0,'sha256:2e7d2c03a9507ae265ecf5b5356885a53393a2029d241394997265a1a25aefc6',1.0);
INSERT INTO "stockpot_ingredients" VALUES('sha256:8364ccdf586ce03dabc390b666536c52026c791f603fc73c998c8d171aebb73e',0,'sha256:ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb',0.5);
INSERT INTO "stockpot_ingredients" VALUES('sha256:8364ccdf586ce03dabc390b666536c52026c791f603fc73c998c8d171aebb73e',1,'sha256:3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d',0.5);
INSERT INTO "stockpot_ingredients" VALUES('sha256:7da2a86a891ada6df7bb23dcf88361671c3e6462e4103827d5e72860bb60f7ab',0,'sha256:ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb',0.5);
INSERT INTO "stockpot_ingredients" VALUES('sha256:7da2a86a891ada6df7bb23dcf88361671c3e6462e4103827d5e72860bb60f7ab',1,'sha256:2e7d2c03a9507ae265ecf5b5356885a53393a2029d241394997265a1a25aefc6',0.5);
INSERT INTO "stockpot_ingredients" VALUES('sha256:01b9462b63b107f7372b528534f6afb5927225bb98b42dc0181416e97cf266e7',0,'sha256:ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb',1.0);
INSERT INTO "stockpot_ingredients" VALUES('sha256:dff3ca5d86ec1471ca95753185dd88a5a73e39e050c3a1550a23e430c72e6281',0,'sha256:ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb',0.5);
INSERT INTO "stockpot_ingredients" VALUES('sha256:dff3ca5d86ec1471ca95753185dd88a5a73e39e050c3a1550a23e430c72e6281',1,'sha256:3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d',0.5);
CREATE TABLE stockpot_jobs (
	name VARCHAR(71) NOT NULL, 
	model VARCHAR NOT NULL, 
	request JSON NOT NULL, 
	created_at DOUBLE NOT NULL, 
	answered_at DOUBLE, 
	outcome JSON, 
	evidence JSON, opening JSON, asked_at DOUBLE, failed_at DOUBLE, fault VARCHAR, attempts INTEGER DEFAULT '0' NOT NULL, predecessor VARCHAR(71), rule VARCHAR, 
	CONSTRAINT pk_stockpot_jobs PRIMARY KEY (name)
);
INSERT INTO "stockpot_jobs" VALUES('sha256:3ec22e66754979d98f65b28e6a69d136387476fb894909f2b4855170b05d77b1','digits','{"model": "digits", "task": "arrays", "task_args": {}, "sweep": "parent", "experiment": null, "filter": null, "methods": ["greedy", "uniform"], "accept": "not_worse", "select_on": "validation", "report_on": "test", "shifts": [], "weights": null, "top": null, "by": null, "direction": null, "partial": false, "max_seconds": null, "points": 5, "margin": -0.5, "register": "not_worse", "or_best_single": false, "again": false, "any_base": false, "verify_exact": false, "wait": true}',1.79586327700189137459e+09,1.79586327705700540542e+09,'{"report": {"request": {"model": "digits", "task": "arrays", "task_args": {}, "sweep": "parent", "experiment": null, "filter": null, "methods": ["greedy", "uniform"], "accept": "not_worse", "select_on": "validation", "report_on": "test", "shifts": [], "weights": null, "top": null, "by": null, "direction": null, "partial": false, "max_seconds": null, "points": 5, "margin": -0.5, "register": "not_worse", "or_best_single": false, "again": false, "any_base": false, "verify_exact": false, "wait": true}, "rows": [{"label": "greedy soup", "methods": ["greedy"], "recipe": {"ingredients": [{"checkpoint": "sha256:ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb", "coefficient": 1.0}], "arithmetic": "mean/1", "overlay": null}, "scores": {"test": 0.5}, "versus_best": {}, "inference_cost": 1}, {"label": "greedy soup", "methods": ["greedy"], "recipe": {"ingredients": [{"checkpoint": "sha256:ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb", "coefficient": 0.5}, {"checkpoint": "sha256:3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d", "coefficient": 0.5}], "arithmetic": "mean/1", "overlay": null}, "scores": {"test": 0.5}, "versus_best": {}, "inference_cost": 1}], "selections": [], "candidates": [{"run_id": "one", "run_name": "one", "checkpoint": "sha256:7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed", "held_out": 0.5, "report": null, "mean_of_shifts": null}, {"run_id": "two", "run_name": "two", "checkpoint": "sha256:3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3", "held_out": 0.5, "report": null, "mean_of_shifts": null}], "exclusions": [], "protocols": [{"task": "arrays", "task_version": "1+0123456789ab", "task_args": [["path", "digits.npz"]], "split": "validation", "dataset": "sha256:cc6b6bad31a0ff4d6dfd4953a6346a1c463d884723898a2af964b998e5499e22", "n": 3, "dtype": "float32", "tf32": false, "batch_size": 256, "device": "cpu x86_64", "torch_version": "2.13.0", "modules": [], "distributions": [], "software": []}, {"task": "arrays", "task_version": "1+0123456789ab", "task_args": [["path", "digits.npz"]], "split": "test", "dataset": "sha256:cc6b6bad31a0ff4d6dfd4953a6346a1c463d884723898a2af964b998e5499e22", "n": 3, "dtype": "float32", "tf32": false, "batch_size": 256, "device": "cpu x86_64", "torch_version": "2.13.0", "modules": [], "distributions": [], "software": []}], "ensembles": [], "notes": []}, "soups": [], "evaluations": 7, "passes": 0.0}','{"surroundings": "sha256:fcec91509759ad995c2cd14bcb26b2720993faf61c29d379b270d442d92290eb", "files": [{"path": "/data.npz", "size": 1, "modified_ns": 2, "changed_ns": 3, "inode": 9223372036854775808}], "doubt": ""}',NULL,NULL,NULL,NULL,0,NULL,NULL);
INSERT INTO "stockpot_jobs" VALUES('sha256:e07a192647a0e951a19245e886a4ae8922e05357dda77c39e734060532f096b5','digits','{"model": "digits", "task": "arrays", "task_args": {}, "sweep": "parent", "experiment": null, "filter": null, "methods": ["greedy", "uniform"], "accept": "not_worse", "select_on": "validation", "report_on": "test", "shifts": [], "weights": null, "checkpoint_metric": null, "top": null, "by": null, "direction": null, "partial": false, "max_seconds": null, "points": 5, "margin": -0.5, "register": "not_worse", "or_best_single": false, "again": false, "any_base": false, "verify_exact": false, "wait": true}',1.7959185362242622375e+09,NULL,NULL,NULL,NULL,1.79591853641199326518e+09,1.79591853646200299262e+09,'no split',1,NULL,'birds');
INSERT INTO "stockpot_jobs" VALUES('sha256:3bac7c187bb65a85820cbe756c1a29a8538b9f54f51d2a88e5afa9982fb80839','digits','{"model": "digits", "task": "arrays", "task_args": {}, "sweep": "parent", "experiment": null, "filter": null, "methods": ["greedy", "uniform"], "accept": "not_worse", "select_on": "validation", "report_on": "test", "shifts": [], "weights": null, "checkpoint_metric": null, "top": null, "by": null, "direction": null, "partial": false, "max_seconds": null, "points": 5, "margin": -0.5, "register": "not_worse", "or_best_single": false, "again": false, "any_base": false, "verify_exact": false, "wait": true}',1.79591853647949242596e+09,NULL,NULL,NULL,NULL,1.79591853649398827553e+09,NULL,NULL,0,'sha256:e07a192647a0e951a19245e886a4ae8922e05357dda77c39e734060532f096b5','birds');
INSERT INTO "stockpot_jobs" VALUES('sha256:b6a389a6f54588546b7523351f64129d2929aeeae95ab1257765c1a8b1fe733d','digits','{"model": "digits", "task": "arrays", "task_args": {}, "sweep": "parent", "experiment": null, "filter": null, "methods": ["greedy", "uniform"], "accept": "not_worse", "select_on": "validation", "report_on": "test", "shifts": [], "weights": null, "checkpoint_metric": null, "top": null, "by": null, "direction": null, "partial": false, "max_seconds": null, "points": 5, "margin": -1.0, "register": "not_worse", "or_best_single": false, "again": false, "any_base": false, "verify_exact": false, "wait": true}',1.79591853650617623333e+09,NULL,NULL,NULL,NULL,NULL,1.79591853652899122238e+09,'no device',1,NULL,NULL);
CREATE TABLE stockpot_leases (
	name VARCHAR NOT NULL, 
	owner VARCHAR NOT NULL, 
	since DOUBLE NOT NULL, 
	until DOUBLE NOT NULL, 
	CONSTRAINT pk_stockpot_leases PRIMARY KEY (name)
);
INSERT INTO "stockpot_leases" VALUES('job sha256:3ec22e66754979d98f65b28e6a69d136387476fb894909f2b4855170b05d77b1','me',1.79586327701898527137e+09,1.79586327601898527147e+09);
CREATE TABLE stockpot_overlays (
	recipe VARCHAR(71) NOT NULL, 
	overlay VARCHAR(71) NOT NULL, 
	created_at DOUBLE NOT NULL, content BLOB NOT NULL, 
	CONSTRAINT pk_stockpot_overlays PRIMARY KEY (recipe), 
	CONSTRAINT fk_stockpot_overlays_recipe FOREIGN KEY(recipe) REFERENCES stockpot_recipes (digest)
);
INSERT INTO "stockpot_overlays" VALUES('sha256:dff3ca5d86ec1471ca95753185dd88a5a73e39e050c3a1550a23e430c72e6281','sha256:49d4843163a72a458423d1f1b5dd9ee20224d350c1f30e3882783feae8ba2e8b',1.79590323397527265548e+09,X'73746174697374696373');
CREATE TABLE "stockpot_protocols" (
	digest VARCHAR(71) NOT NULL, 
	document JSON NOT NULL, 
	mixed_bounds_withdrawn BOOLEAN DEFAULT 0 NOT NULL, 
	question VARCHAR(71) NOT NULL, 
	CONSTRAINT pk_stockpot_protocols PRIMARY KEY (digest)
);
INSERT INTO "stockpot_protocols" VALUES('sha256:4f4c6b36183113aac8736e439cffb8d0e1158b8b019b8d3b3d86ef990fcbd8b5','{"question": {"task": "arrays", "task_version": "1+0123456789ab", "task_args": [["path", "digits.npz"]], "split": "validation", "dataset": "sha256:cc6b6bad31a0ff4d6dfd4953a6346a1c463d884723898a2af964b998e5499e22", "n": 3}, "conditions": {"dtype": "float32", "tf32": false, "batch_size": 256, "device": "cpu x86_64", "torch_version": "2.13.0"}}',0,'sha256:fe398f264d808b042ed927129e70d53a80d64b1c3dbfe7335c9a94036bb2a390');
INSERT INTO "stockpot_protocols" VALUES('sha256:048fb31e8b40241bef5bdd4040fac1979badc1d46ef7e8c48742ac7e7e9259d4','{"question": {"task": "arrays", "task_version": "1+0123456789ab", "task_args": [["path", "digits.npz"]], "split": "test", "dataset": "sha256:cc6b6bad31a0ff4d6dfd4953a6346a1c463d884723898a2af964b998e5499e22", "n": 3}, "conditions": {"dtype": "float32", "tf32": false, "batch_size": 256, "device": "cpu x86_64", "torch_version": "2.13.0"}}',1,'sha256:dc00807b8a7c2e40e1f5b72c1f4ed0d033a860d48163028f7d9d9b664bb8ce81');
INSERT INTO "stockpot_protocols" VALUES('sha256:3b68567d56e4d584d5ef6fd684d71025ddd96cc6b072a009e87d949bb9b9ffa3','{"question": {"task": "arrays", "task_version": "1+0123456789ab", "task_args": [["path", "digits.npz"]], "split": "fog", "dataset": "sha256:cc6b6bad31a0ff4d6dfd4953a6346a1c463d884723898a2af964b998e5499e22", "n": 3, "modules": [["birds", "0123456789ab"]], "distributions": [["timm", "1.0.27"]]}, "conditions": {"dtype": "float32", "tf32": false, "batch_size": 256, "device": "NVIDIA H100 80GB HBM3", "torch_version": "2.13.0", "software": [["cuda", "13.0"], ["cudnn", "9.1"]]}}',0,'sha256:aa7e1c02f87fa76e3b48bc2c25cf5268dab85fe7bbba9fc3ffbf6c9b648f9485');
CREATE TABLE stockpot_recalls (
	id INTEGER NOT NULL, 
	kind VARCHAR(16) NOT NULL, 
	name VARCHAR NOT NULL, 
	reason VARCHAR NOT NULL, 
	"by" VARCHAR NOT NULL, 
	withdrawn BOOLEAN NOT NULL, 
	at DOUBLE NOT NULL, 
	CONSTRAINT pk_stockpot_recalls PRIMARY KEY (id)
);
INSERT INTO "stockpot_recalls" VALUES(1,'run','0123456789abcdef0123456789abcdef','labels of another year','anna@host',0,1.79596351075899744037e+09);
CREATE TABLE stockpot_recipes (
	digest VARCHAR(71) NOT NULL, 
	document JSON NOT NULL, 
	CONSTRAINT pk_stockpot_recipes PRIMARY KEY (digest)
);
INSERT INTO "stockpot_recipes" VALUES('sha256:680a367f05b2149ace8cccbbdae42b87133a3418e45fee4856da51eed4d41a53','{"ingredients": [{"checkpoint": "sha256:ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb", "coefficient": 0.5}, {"checkpoint": "sha256:3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d", "coefficient": 0.5}], "arithmetic": "mean/1", "overlay": "sha256:49d4843163a72a458423d1f1b5dd9ee20224d350c1f30e3882783feae8ba2e8b"}');
INSERT INTO "stockpot_recipes" VALUES('sha256:ddaea531995e17cded1f6c4e7c693c5a2cbd4184867781e4fc261eef73865af2','{"ingredients": [{"checkpoint": "sha256:2e7d2c03a9507ae265ecf5b5356885a53393a2029d241394997265a1a25aefc6", "coefficient": 1.0}], "arithmetic": "mean/1", "overlay": null}');
INSERT INTO "stockpot_recipes" VALUES('sha256:8364ccdf586ce03dabc390b666536c52026c791f603fc73c998c8d171aebb73e','{"ingredients": [{"checkpoint": "sha256:ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb", "coefficient": 0.5}, {"checkpoint": "sha256:3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d", "coefficient": 0.5}], "arithmetic": "mean/1", "overlay": null}');
INSERT INTO "stockpot_recipes" VALUES('sha256:7da2a86a891ada6df7bb23dcf88361671c3e6462e4103827d5e72860bb60f7ab','{"ingredients": [{"checkpoint": "sha256:ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb", "coefficient": 0.5}, {"checkpoint": "sha256:2e7d2c03a9507ae265ecf5b5356885a53393a2029d241394997265a1a25aefc6", "coefficient": 0.5}], "arithmetic": "mean/1", "overlay": null}');
INSERT INTO "stockpot_recipes" VALUES('sha256:01b9462b63b107f7372b528534f6afb5927225bb98b42dc0181416e97cf266e7','{"ingredients": [{"checkpoint": "sha256:ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb", "coefficient": 1.0}], "arithmetic": "mean/1", "overlay": null}');
INSERT INTO "stockpot_recipes" VALUES('sha256:dff3ca5d86ec1471ca95753185dd88a5a73e39e050c3a1550a23e430c72e6281','{"ingredients": [{"checkpoint": "sha256:ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb", "coefficient": 0.5}, {"checkpoint": "sha256:3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d", "coefficient": 0.5}], "arithmetic": "mean/1", "overlay": {"split": "training", "n": 512, "version": "bn/1", "data": "sha256:cc6b6bad31a0ff4d6dfd4953a6346a1c463d884723898a2af964b998e5499e22"}}');
CREATE TABLE "stockpot_registrations" (
	model VARCHAR NOT NULL, 
	recipe VARCHAR(71) NOT NULL, 
	state VARCHAR(16) NOT NULL, 
	checkpoint VARCHAR(71), 
	run_id VARCHAR, 
	model_id VARCHAR, 
	version VARCHAR, 
	updated_at DOUBLE NOT NULL, 
	CONSTRAINT pk_stockpot_registrations PRIMARY KEY (model, recipe), 
	CONSTRAINT fk_stockpot_registrations_recipe FOREIGN KEY(recipe) REFERENCES stockpot_recipes (digest)
);
INSERT INTO "stockpot_registrations" VALUES('digits','sha256:680a367f05b2149ace8cccbbdae42b87133a3418e45fee4856da51eed4d41a53','REGISTERED','sha256:9014fac8184d7ba9e1dcd80b8c1e1aa2906af8a01fc1e6e9092e575eabf7b80d','run','m-1','3',1.79580120114980936046e+09);
INSERT INTO "stockpot_registrations" VALUES('letters','sha256:680a367f05b2149ace8cccbbdae42b87133a3418e45fee4856da51eed4d41a53','REGISTERING',NULL,NULL,NULL,NULL,1.79580120115725946428e+09);
CREATE TABLE stockpot_reported (
	report VARCHAR(71) NOT NULL, 
	recipe VARCHAR(71) NOT NULL, 
	CONSTRAINT pk_stockpot_reported PRIMARY KEY (report, recipe), 
	CONSTRAINT fk_stockpot_reported_report FOREIGN KEY(report) REFERENCES stockpot_reports (digest), 
	CONSTRAINT fk_stockpot_reported_recipe FOREIGN KEY(recipe) REFERENCES stockpot_recipes (digest)
);
INSERT INTO "stockpot_reported" VALUES('sha256:1fe700c4872a963d6f34ac36eccae906e5bcb177812818b9446dc4028b6d7777','sha256:01b9462b63b107f7372b528534f6afb5927225bb98b42dc0181416e97cf266e7');
INSERT INTO "stockpot_reported" VALUES('sha256:1fe700c4872a963d6f34ac36eccae906e5bcb177812818b9446dc4028b6d7777','sha256:8364ccdf586ce03dabc390b666536c52026c791f603fc73c998c8d171aebb73e');
CREATE TABLE stockpot_reports (
	id INTEGER NOT NULL, 
	digest VARCHAR(71) NOT NULL, 
	question VARCHAR(71) NOT NULL, 
	dataset VARCHAR(71), 
	document JSON NOT NULL, 
	created_at DOUBLE NOT NULL, 
	CONSTRAINT pk_stockpot_reports PRIMARY KEY (id), 
	CONSTRAINT uq_stockpot_reports_digest UNIQUE (digest)
);
INSERT INTO "stockpot_reports" VALUES(1,'sha256:1fe700c4872a963d6f34ac36eccae906e5bcb177812818b9446dc4028b6d7777','sha256:a440052b070de608cfb273efc65cfd4a6d36b8a39a892cee4907c901c976c6fb','sha256:cc6b6bad31a0ff4d6dfd4953a6346a1c463d884723898a2af964b998e5499e22','{"request": {"model": "digits", "task": "arrays", "task_args": {}, "sweep": "parent", "experiment": null, "filter": null, "methods": ["greedy", "uniform"], "accept": "not_worse", "select_on": "validation", "report_on": "test", "shifts": [], "weights": null, "top": null, "by": null, "direction": null, "partial": false, "max_seconds": null, "points": 5, "margin": -0.5, "register": "not_worse", "or_best_single": false, "again": false, "any_base": false, "verify_exact": false, "wait": true}, "rows": [{"label": "greedy soup", "methods": ["greedy"], "recipe": {"ingredients": [{"checkpoint": "sha256:ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb", "coefficient": 1.0}], "arithmetic": "mean/1", "overlay": null}, "scores": {"test": 0.5}, "versus_best": {}, "inference_cost": 1}, {"label": "greedy soup", "methods": ["greedy"], "recipe": {"ingredients": [{"checkpoint": "sha256:ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb", "coefficient": 0.5}, {"checkpoint": "sha256:3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d", "coefficient": 0.5}], "arithmetic": "mean/1", "overlay": null}, "scores": {"test": 0.5}, "versus_best": {}, "inference_cost": 1}], "selections": [], "candidates": [{"run_id": "one", "run_name": "one", "checkpoint": "sha256:7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed", "held_out": 0.5, "report": null, "mean_of_shifts": null}, {"run_id": "two", "run_name": "two", "checkpoint": "sha256:3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3", "held_out": 0.5, "report": null, "mean_of_shifts": null}], "exclusions": [], "protocols": [{"task": "arrays", "task_version": "1+0123456789ab", "task_args": [["path", "digits.npz"]], "split": "validation", "dataset": "sha256:cc6b6bad31a0ff4d6dfd4953a6346a1c463d884723898a2af964b998e5499e22", "n": 3, "dtype": "float32", "tf32": false, "batch_size": 256, "device": "cpu x86_64", "torch_version": "2.13.0", "modules": [], "distributions": [], "software": []}, {"task": "arrays", "task_version": "1+0123456789ab", "task_args": [["path", "digits.npz"]], "split": "test", "dataset": "sha256:cc6b6bad31a0ff4d6dfd4953a6346a1c463d884723898a2af964b998e5499e22", "n": 3, "dtype": "float32", "tf32": false, "batch_size": 256, "device": "cpu x86_64", "torch_version": "2.13.0", "modules": [], "distributions": [], "software": []}], "ensembles": [], "notes": []}',1.79586327698843121526e+09);
CREATE TABLE stockpot_selections (
	id INTEGER NOT NULL, 
	digest VARCHAR(71) NOT NULL, 
	recipe VARCHAR(71) NOT NULL, 
	protocol VARCHAR(71) NOT NULL, 
	document JSON NOT NULL, 
	created_at DOUBLE NOT NULL, 
	CONSTRAINT pk_stockpot_selections PRIMARY KEY (id), 
	CONSTRAINT uq_stockpot_selections_digest UNIQUE (digest), 
	CONSTRAINT fk_stockpot_selections_recipe FOREIGN KEY(recipe) REFERENCES stockpot_recipes (digest), 
	CONSTRAINT fk_stockpot_selections_protocol FOREIGN KEY(protocol) REFERENCES stockpot_protocols (digest)
);
INSERT INTO "stockpot_selections" VALUES(1,'sha256:9e4aa7e6af1c2ab412f70e106ca0b6f209da20b3864523e14a2d73e089bcf8a0','sha256:680a367f05b2149ace8cccbbdae42b87133a3418e45fee4856da51eed4d41a53','sha256:4f4c6b36183113aac8736e439cffb8d0e1158b8b019b8d3b3d86ef990fcbd8b5','{"method": "greedy", "rule": "not_worse", "steps": [{"recipe": "sha256:680a367f05b2149ace8cccbbdae42b87133a3418e45fee4856da51eed4d41a53", "tried": ["sha256:ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb", "sha256:3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d"], "score": -0.0, "bound": null, "kept": true}, {"recipe": "sha256:ff9ac8aefd179e1ace2e07f132b1ffffe9f8677f22d548f021a51a27d510c94c", "tried": ["sha256:ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb", "sha256:3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d"], "score": null, "bound": 0.30000000000000004, "kept": false}, {"recipe": "sha256:ddaea531995e17cded1f6c4e7c693c5a2cbd4184867781e4fc261eef73865af2", "tried": ["sha256:ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb", "sha256:3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d"], "score": "nan", "bound": null, "kept": false}], "recipe": {"ingredients": [{"checkpoint": "sha256:ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb", "coefficient": 0.5}, {"checkpoint": "sha256:3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d", "coefficient": 0.5}], "arithmetic": "mean/1", "overlay": "sha256:49d4843163a72a458423d1f1b5dd9ee20224d350c1f30e3882783feae8ba2e8b"}, "score": 0.5, "complete": false}',1.79580120112969923024e+09);
CREATE TABLE "stockpot_sweeps" (
	sweep VARCHAR NOT NULL, 
	rule VARCHAR NOT NULL, 
	moved DOUBLE NOT NULL, 
	look_at DOUBLE, 
	tag VARCHAR, 
	job VARCHAR(71), 
	CONSTRAINT pk_stockpot_sweeps PRIMARY KEY (sweep, rule)
);
INSERT INTO "stockpot_sweeps" VALUES('parent','birds',1795863277.0,1795866877.0,'yes','sha256:3bac7c187bb65a85820cbe756c1a29a8538b9f54f51d2a88e5afa9982fb80839');
INSERT INTO "stockpot_sweeps" VALUES('unasked','birds',1795863277.0,NULL,NULL,NULL);
CREATE TABLE stockpot_trail (
	model VARCHAR NOT NULL, 
	born BIGINT NOT NULL, 
	number INTEGER NOT NULL, 
	kind VARCHAR(16) NOT NULL, 
	at DOUBLE NOT NULL, 
	"by" VARCHAR NOT NULL, 
	reason VARCHAR NOT NULL, 
	fact JSON NOT NULL, 
	previous VARCHAR(71), 
	digest VARCHAR(71) NOT NULL, 
	CONSTRAINT pk_stockpot_trail PRIMARY KEY (model, born, number), 
	CONSTRAINT uq_stockpot_trail_digest UNIQUE (digest)
);
INSERT INTO "stockpot_trail" VALUES('digits',1700000000000,1,'decision',1795937300.559,'ann','better','{"passed": true}',NULL,'sha256:88867914070d778acba9d402976828093a0012e17060784652325b2123429da8');
CREATE TABLE stockpot_versions (
	recipe VARCHAR(71) NOT NULL, 
	model VARCHAR NOT NULL, 
	version VARCHAR NOT NULL, 
	checkpoint VARCHAR(71) NOT NULL, 
	run_id VARCHAR, 
	model_id VARCHAR, 
	seen_at DOUBLE NOT NULL, 
	CONSTRAINT pk_stockpot_versions PRIMARY KEY (recipe, model, version), 
	CONSTRAINT fk_stockpot_versions_recipe FOREIGN KEY(recipe) REFERENCES stockpot_recipes (digest)
);
INSERT INTO "stockpot_versions" VALUES('sha256:680a367f05b2149ace8cccbbdae42b87133a3418e45fee4856da51eed4d41a53','digits','3','sha256:9014fac8184d7ba9e1dcd80b8c1e1aa2906af8a01fc1e6e9092e575eabf7b80d','run','m-1',1.79580120114980936046e+09);
CREATE TABLE stockpot_watches (
	model VARCHAR NOT NULL, 
	born BIGINT NOT NULL, 
	number INTEGER NOT NULL, 
	digest VARCHAR(71) NOT NULL, 
	at DOUBLE NOT NULL, 
	mlflow VARCHAR NOT NULL, 
	looked DOUBLE, 
	aliases JSON NOT NULL, 
	gone BOOLEAN NOT NULL, 
	CONSTRAINT pk_stockpot_watches PRIMARY KEY (model, born)
);
INSERT INTO "stockpot_watches" VALUES('digits',1700000000000,1,'sha256:88867914070d778acba9d402976828093a0012e17060784652325b2123429da8',1795937300.559,'',NULL,'{}',0);
CREATE TABLE stockpot_watermarks (
	name VARCHAR NOT NULL, 
	begun DOUBLE NOT NULL, 
	until DOUBLE NOT NULL, 
	CONSTRAINT pk_stockpot_watermarks PRIMARY KEY (name)
);
INSERT INTO "stockpot_watermarks" VALUES('["birds", null, "1", 5]',1795863000.0,1795863277.0);
CREATE INDEX ix_stockpot_ingredients_checkpoint ON stockpot_ingredients (checkpoint);
CREATE INDEX ix_stockpot_selections_recipe ON stockpot_selections (recipe);
CREATE INDEX ix_stockpot_registrations_recipe ON stockpot_registrations (recipe);
CREATE INDEX ix_stockpot_jobs_model ON stockpot_jobs (model);
CREATE INDEX ix_stockpot_candidates_run_id ON stockpot_candidates (run_id);
CREATE INDEX ix_stockpot_candidates_checkpoint ON stockpot_candidates (checkpoint);
CREATE INDEX ix_stockpot_reports_dataset ON stockpot_reports (dataset);
CREATE INDEX ix_stockpot_reported_recipe ON stockpot_reported (recipe);
CREATE INDEX ix_stockpot_protocols_question ON stockpot_protocols (question);
CREATE INDEX ix_stockpot_sweeps_look_at ON stockpot_sweeps (look_at);
CREATE INDEX ix_stockpot_versions_checkpoint ON stockpot_versions (checkpoint);
CREATE INDEX ix_stockpot_versions_run_id ON stockpot_versions (run_id);
COMMIT;
