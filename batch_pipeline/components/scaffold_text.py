"""The declaration that the scaffolder writes: what is needed, and after it what there is besides."""

DECLARATION = """\
# A batch service: an ONNX model over the objects of a bucket. Each service is a partition of its assets.
type: {type}

attributes:
  # name: {name}  # the folder's, unless it is given
  description: ""

  # The parameters of each service. Without placeholders this is one service, named {name}; with {{name}} in
  # output_path it is as many as there are partitions. {{stem}}, {{time}} and {{etag8}} may stand in texts too.
  service:
    model: {model}
    input_path: {input_path}
    output_path: {output_path}
    # node_spec: cpu-2u8g
    # node_count: 1
    # error_threshold: 0
    # if_changed: overwrite

  # What makes services. Triggers on data bring the input: leave input_path out, and put {{name}} into output_path.
  # triggers:
  #   - manifests: {{path: "s3://my-bucket/manifests/"}}
  #   - new_files: {{path: "s3://my-bucket/incoming/", settle_seconds: 60}}
  #   - notifications: {{queue_url: "https://sqs.us-east-1.amazonaws.com/123456789012/new-objects"}}
  #   - schedule: {{cron: "0 6 * * *"}}
  #   - model: {{}}

  # How its assets stand in the catalog.
  # deps: [upstream/asset]
  # key_prefix: shop
  # group_name: batch_service
  # owners: ["team:data"]
  # tags: {{domain: shop}}
  # freshness_policy: "{{{{ dg.FreshnessPolicy.time_window(fail_window=datetime.timedelta(hours=24)) }}}}"
  # automation_condition: "{{{{ dg.AutomationCondition.eager() }}}}"
"""
