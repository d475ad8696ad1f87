"""The two shapes in which CPU Manager for Kubernetes shipped its mutations.yaml: what cluster-init wrote, and its template."""

GENERATED = """
mutations:
  perContainer:
    env:
    - name: CMK_PROC_FS
      value: /host/proc
    volumeMounts:
    - {mountPath: /host/proc, name: cmk-host-proc, readOnly: true}
    - {mountPath: /opt/bin, name: cmk-install-dir, readOnly: true}
  perPod:
    metadata:
      annotations:
        cmk.intel.com/resources-injected: "true"
    spec:
      serviceAccountName: cmk-serviceaccount
      tolerations:
      - operator: Exists
      volumes:
      - {hostPath: {path: /proc}, name: cmk-host-proc}
      - {hostPath: {path: /opt/bin}, name: cmk-install-dir}
"""

TEMPLATE = """
mutations:
  perPod:
    metadata:
      annotations:
        cmk.intel.com/resources-injected: "true"
    spec:
      serviceAccount: cmk-serviceaccount
      tolerations:
      - operator: Exists
      volumes:
      - name: cmk-host-proc
        hostPath:
          path: "/proc"
      - name: cmk-config-dir
        hostPath:
          path: "/etc/cmk"
      - name: cmk-install-dir
        hostPath:
          path: "/opt/bin"
  perContainer:
    env:
    - name: CMK_PROC_FS
      value: "/host/proc"
    volumeMounts:
    - name: cmk-host-proc
      mountPath: /host/proc
      readOnly: true
    - name: cmk-config-dir
      mountPath: /etc/cmk
    - name: cmk-install-dir
      mountPath: /opt/bin
"""
